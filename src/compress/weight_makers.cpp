// The two sources of weights: a checkpoint, and random numbers.
#include <algorithm>

#include "compress/pack_model.h"
#include "core/error.h"
#include "core/files.h"
#include "core/pool.h"
#include "infer/random_weights.h"
#include "infer/stored_weights.h"

namespace hadal {
namespace {

class StoredMaker : public WeightMaker {
 public:
  StoredMaker(const ModelConfig& config, const Checkpoint& checkpoint) : checkpoint_(checkpoint), stored_(config, checkpoint) {}

  std::string identity() const override {
    std::string text;
    for (const auto& file : checkpoint_.files) {
      const auto changed = std::filesystem::last_write_time(file->path()).time_since_epoch().count();
      text += fmt::format("{} {} {}; ", file->path().filename().string(), file->bytes().size(), changed);
    }
    return text;
  }
  void expect(const std::string& name, Shape shape) override {
    if (stored_.is_packed(name)) throw Error("tensor {} is packed already: expected weights of 16 or 32 bits", name);
    stored_.rows(name, shape);
  }
  void expect_no_more() override { stored_.check_extra(); }
  DType plain_type(const std::string& name, Shape shape) override { return stored_.plain_type(name, shape); }

  SquaredError pack(const std::string& name, DType type, Shape shape, int64_t first, int64_t rows, bool thorough,
                    const PackedMemory& to) override {
    const ReadRow read = stored_.rows(name, shape);
    const auto from_first = [&](int64_t row, float* out) { read(first + row, out); };
    return pack_matrix(type, rows, shape.cols, from_first, to, name, {{}, thorough});
  }

  void fill(const std::string& name, DType type, Shape shape, Role, int64_t first, int64_t rows, std::byte* to) override {
    const ReadRow read = stored_.rows(name, shape);
    if (shape.cols == 1) {  // a vector is one row
      std::vector<float> row(static_cast<size_t>(shape.rows));
      read(0, row.data());
      return convert_row(row, type, to);
    }
    pool().run(rows, [&](int64_t r) {
      std::vector<float> row(static_cast<size_t>(shape.cols));
      read(first + r, row.data());
      convert_row(row, type, to + bytes_of(type, r * shape.cols));
    });
  }

 private:
  const Checkpoint& checkpoint_;
  StoredWeights stored_;
};

class RandomMaker : public WeightMaker {
 public:
  RandomMaker(std::string preset, uint64_t seed) : preset_(std::move(preset)), random_(seed) {}
  std::string identity() const override { return "random weights for " + preset_; }
  void expect(const std::string&, Shape) override {}
  void expect_no_more() override {}
  DType plain_type(const std::string&, Shape) override { return DType::bf16; }
  SquaredError pack(const std::string& name, DType type, Shape shape, int64_t first, int64_t rows, bool, const PackedMemory& to) override {
    random_.packed(fmt::format("{} {}", name, first), type, {rows, shape.cols}, to);
    return {};
  }
  void fill(const std::string& name, DType type, Shape shape, Role role, int64_t first, int64_t rows, std::byte* to) override {
    random_.plain(fmt::format("{} {}", name, first), type, {rows, shape.cols}, role, to);
  }

 private:
  std::string preset_;
  RandomWeights random_;
};

}  // namespace

std::unique_ptr<WeightMaker> weights_of(const ModelConfig& config, const Checkpoint& checkpoint) {
  return std::make_unique<StoredMaker>(config, checkpoint);
}

std::unique_ptr<WeightMaker> random_weights(const std::string& preset, uint64_t seed) {
  return std::make_unique<RandomMaker>(preset, seed);
}

}  // namespace hadal
