#include "compress/pack_model.h"

#include <algorithm>

#include "core/error.h"
#include "model/part_names.h"
#include "model/safetensors_writer.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

constexpr int64_t slab_bytes = int64_t(1) << 20;  // of one step
constexpr int64_t page = 4096;                    // what direct reads of an expert are aligned to

struct Piece {  // one parameter and what it becomes
  std::string name;
  Shape shape;
  Role role;
  DType type;
  bool begins_expert, inside_expert;

  std::vector<PlannedTensor> tensors() const {
    const int64_t alignment = begins_expert ? page : 64;
    if (!is_packed(type)) return {{name, type, shape.cols == 1 ? std::vector{shape.rows} : std::vector{shape.rows, shape.cols}, alignment}};
    const int64_t rows = padded_rows(shape.rows), block = info_of(type).block_bytes;
    return {{name, DType::u8, {packed_bytes(type, shape.rows, shape.cols) / block, block}, alignment},
            {name + "_scale", DType::f32, {rows}, 64},
            {name + "_sum", DType::i32, {rows}, 64}};
  }
  int64_t bytes() const {
    int64_t sum = 0;
    for (const PlannedTensor& t : tensors()) sum += t.bytes();
    return sum;
  }
  int64_t values() const { return shape.rows * shape.cols; }
};

struct Shard {
  std::string file;
  std::vector<Piece> pieces;
  std::vector<PlannedTensor> tensors() const {
    std::vector<PlannedTensor> all;
    for (const Piece& p : pieces)
      for (PlannedTensor& t : p.tensors()) all.push_back(std::move(t));
    return all;
  }
};

std::vector<Piece> plan_pieces(const ModelConfig& config, WeightMaker& weights, const Recipe& recipe) {
  std::vector<Piece> pieces;
  Params<int> params = make_params<int>(config);
  for_each_param(config, params, [&](const std::string& name, Shape shape, Role role, int&) {
    weights.expect(name, shape);
    const bool matrix = role == Role::matrix || role == Role::embedding;
    const std::optional<DType> wanted = recipe.type_of(config, name, role);
    const DType type = !matrix ? DType::f32 : wanted ? *wanted : weights.plain_type(name, shape);
    const bool expert = name.find(".mlp.experts.") != name.npos;
    pieces.push_back({name, shape, role, type, expert && name.ends_with(".gate_proj.weight"), expert});
  });
  weights.expect_no_more();
  return pieces;
}

// In the order of the parameters; an expert is never cut.
std::vector<Shard> plan_shards(std::vector<Piece> pieces, int64_t most_bytes) {
  std::vector<Shard> shards(1);
  int64_t bytes = 0;
  for (Piece& p : pieces) {
    const bool may_cut = !p.inside_expert || p.begins_expert;
    if (may_cut && bytes + p.bytes() > most_bytes && bytes > 0) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += p.bytes();
    shards.back().pieces.push_back(std::move(p));
  }
  for (size_t i = 0; i < shards.size(); ++i)
    shards[i].file = shards.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  return shards;
}

class Packer {
 public:
  Packer(WeightMaker& weights, const PackOptions& options, int64_t all) : weights_(weights), options_(options), all_(all) {}

  void skip(int64_t values) { done_ += values, already_ += values; }

  // Writes one piece; returns its part of the error.
  SquaredError write(const Piece& p, SafetensorsWriter& out) {
    SquaredError error;
    const bool packed = is_packed(p.type), vector = p.shape.cols == 1;
    const int64_t row_bytes = packed ? panel_bytes(p.type, p.shape.cols) / panel_rows : bytes_of(p.type, p.shape.cols);
    const int64_t step = vector ? p.shape.rows : std::max<int64_t>(panel_rows, slab_bytes / row_bytes / panel_rows * panel_rows);
    std::vector<float> scale(static_cast<size_t>(packed ? padded_rows(p.shape.rows) : 0));
    std::vector<int32_t> sum(scale.size());
    for (int64_t first = 0; first < p.shape.rows; first += step) {
      const int64_t rows = std::min(step, p.shape.rows - first);
      slab_.resize(size_t(packed ? packed_bytes(p.type, rows, p.shape.cols) : bytes_of(p.type, rows * p.shape.cols)));
      if (packed)
        error += weights_.pack(p.name, p.type, p.shape, first, rows, options_.thorough,
                               {slab_.data(), scale.data() + first, sum.data() + first});
      else
        weights_.fill(p.name, p.type, p.shape, p.role, first, rows, slab_.data());
      out.write(slab_);
      done_ += rows * p.shape.cols;
      options_.progress(done_, all_, already_);
    }
    out.write(std::as_bytes(std::span(scale)));
    out.write(std::as_bytes(std::span(sum)));
    return error;
  }

 private:
  WeightMaker& weights_;
  const PackOptions& options_;
  int64_t all_, done_ = 0, already_ = 0;
  std::vector<std::byte> slab_;
};

void make_folder(const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem) throw Error("cannot make the folder {}: {}", folder.string(), problem.message());
}

void check_folder(const fs::path& folder, const PackingReport& found, const PackingReport& wanted) {
  if (found.source.empty()) {
    for (const auto& entry : fs::directory_iterator(folder))
      if (!entry.path().filename().string().ends_with(".part"))
        throw Error("{} is not empty (it holds {}): expected a new folder, or one that an earlier run began", folder.string(),
                    entry.path().filename().string());
    return;
  }
  if (found.source != wanted.source || found.recipe != wanted.recipe)
    throw Error("{} was begun from \"{}\" as \"{}\": it cannot be continued from \"{}\" as \"{}\"; give another folder or remove it",
                folder.string(), found.source, found.recipe, wanted.source, wanted.recipe);
}

bool is_whole(const fs::path& path, const ShardReport& shard) {
  std::error_code absent;
  const auto size = fs::file_size(path, absent);
  return !absent && int64_t(size) == shard.bytes && checksum_of(path) == shard.checksum;
}

}  // namespace

PackingReport pack_model(const ModelConfig& config, WeightMaker& weights, const fs::path& folder, const PackOptions& options) {
  std::vector<Piece> pieces = plan_pieces(config, weights, options.recipe);
  int64_t values = 0;
  for (const Piece& p : pieces) values += p.values();
  const std::vector<Shard> shards = plan_shards(std::move(pieces), options.shard_bytes);

  make_folder(folder);
  PackingReport report{weights.identity(), options.recipe_text, {}, false};
  const PackingReport found = read_report(folder);
  check_folder(folder, found, report);

  Packer packer(weights, options, values);
  std::vector<const Shard*> missing;
  int64_t missing_bytes = 0;
  for (const Shard& shard : shards) {
    const auto old = std::ranges::find(found.shards, shard.file, &ShardReport::file);
    if (old != found.shards.end() && is_whole(folder / shard.file, *old)) {
      report.shards.push_back(*old);
      for (const Piece& p : shard.pieces) packer.skip(p.values());
    } else {
      missing.push_back(&shard);
      missing_bytes += safetensors_bytes(shard.tensors());
    }
  }
  if (const auto room = fs::space(folder); int64_t(room.available) < missing_bytes)
    throw Error("not enough room for {}: {:.2f} GB to write, {:.2f} GB free", folder.string(), double(missing_bytes) / 1e9,
                double(room.available) / 1e9);
  write_report(folder, report);
  for (const Shard* shard : missing) {
    ShardReport done{shard->file, safetensors_bytes(shard->tensors()), 0, {}};
    SafetensorsWriter out(folder / shard->file, shard->tensors());
    for (const Piece& p : shard->pieces) {
      const SquaredError error = packer.write(p, out);
      PartReport& part = done.parts[std::string(part_of(p.name, config.layers))];
      part.values += p.values(), part.bytes += p.bytes(), part.error += error.error, part.norm += error.norm;
    }
    out.finish();
    done.checksum = out.checksum();
    report.shards.push_back(std::move(done));
    write_report(folder, report);
  }

  std::map<std::string, std::string> home;
  int64_t bytes = 0;
  for (const Shard& shard : shards)
    for (const PlannedTensor& t : shard.tensors()) home[t.name] = shard.file, bytes += t.bytes();
  write_index(folder, home, bytes);
  std::ranges::sort(report.shards, {}, &ShardReport::file);
  report.complete = true;
  write_report(folder, report);
  return report;
}

std::map<std::string, PartReport> parts_of(const PackingReport& report) {
  std::map<std::string, PartReport> parts;
  for (const ShardReport& shard : report.shards)
    for (const auto& [name, p] : shard.parts) {
      PartReport& sum = parts[name];
      sum.values += p.values, sum.bytes += p.bytes, sum.error += p.error, sum.norm += p.norm;
    }
  return parts;
}

PartReport sum_of(const PackingReport& report) {
  PartReport all;
  for (const auto& [name, p] : parts_of(report)) all.values += p.values, all.bytes += p.bytes, all.error += p.error, all.norm += p.norm;
  return all;
}

}  // namespace hadal
