// Packed folders: what is in them, that they are written whole or not at all, and that a run that was stopped goes on.
#include "compress/pack_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/error.h"
#include "core/files.h"
#include "infer/model.h"
#include "model/safetensors_writer.h"
#include "tests/model/made_files.h"

namespace {
std::atomic<bool> counting = false;
std::atomic<int64_t> allocated = 0, most_allocated = 0;

[[maybe_unused]] void count(int64_t bytes) {
  if (!counting) return;
  const int64_t now = allocated += bytes;
  for (int64_t most = most_allocated; now > most && !most_allocated.compare_exchange_weak(most, now);) continue;
}
}  // namespace

#ifndef __SANITIZE_ADDRESS__  // which has operators of its own
void* operator new(size_t bytes) {
  void* at = std::malloc(bytes);
  if (!at) throw std::bad_alloc();
  count(int64_t(::malloc_usable_size(at)));
  return at;
}
void operator delete(void* at) noexcept {
  count(-int64_t(::malloc_usable_size(at)));
  std::free(at);
}
void operator delete(void* at, size_t) noexcept { operator delete(at); }
#endif

namespace hadal {
namespace {
namespace fs = std::filesystem;

fs::path golden(const std::string& name) {
  const fs::path folder = fs::path(HADAL_SOURCE) / "tests" / "golden" / name;
  return fs::exists(folder / "model.gguf") ? folder / "model.gguf" : folder / "model";
}

PackOptions recipe(DType type) { return {.recipe = {type, {}}, .recipe_text = std::string(name_of(type)), .shard_bytes = 60'000}; }

PackingReport pack(const ModelSource& source, const fs::path& folder, const PackOptions& options) {
  ModelConfig config = source.config();
  const Checkpoint checkpoint = source.checkpoint();
  config.load_draft = config.draft_layers > 0 && checkpoint.tensors.contains(fmt::format("model.layers.{}.eh_proj.weight", config.layers));
  const PackingReport report = pack_model(config, *weights_of(config, checkpoint), folder, options);
  write_text_side(source, folder, options.recipe_text, config.load_draft ? 1 : 0);
  return report;
}

// All weights of a model, in order.
template <class F>
void for_each_weight(Model& model, F f) {
  for_each_param(model.config, model.params, [&](const std::string& name, Shape, Role, Weight& w) { f(name, w); });
}

bool same_bytes(const Weight& a, const Weight& b) {
  if (a.dtype != b.dtype || a.rows != b.rows || a.cols != b.cols) return false;
  if (!is_packed(a.dtype)) return std::memcmp(a.data, b.data, size_t(a.bytes())) == 0;
  const auto rows = size_t(padded_rows(a.rows));
  return std::memcmp(a.data, b.data, size_t(packed_bytes(a.dtype, a.rows, a.cols))) == 0 && std::memcmp(a.scale, b.scale, rows * 4) == 0 &&
         std::memcmp(a.sum, b.sum, rows * 4) == 0;
}

const char* const models[] = {
    "llama",       "qwen2_tied",          "deepseek",        "deepseek_v2_lite", "deepseek_v3_fp8",       "deepseek_v32", "gguf_llama_q4_0",
    "gguf_llama3", "gguf_deepseek2_lite", "gguf_qwen3_q8_0", "llama_llama3",     "gguf_deepseek2_v3_q4_1"};

TEST(PackModel, AFolderHoldsWhatPackingWhileLoadingMakes) {
  for (const std::string name : models)
    for (const DType type : {DType::w8, DType::w4, DType::w2}) {
      const test::Folder folder;
      const ModelSource source(golden(name));
      const PackingReport report = pack(source, folder.path(), recipe(type));
      EXPECT_TRUE(report.complete);
      const ModelSource packed(folder.path());
      Model from_folder = load_model(packed.config(), packed.checkpoint());
      Model while_loading =
          load_model(source.config(), source.checkpoint(), {.recipe = {type, {}}, .experts_on_disk = false, .progress = {}});
      std::vector<Weight> expected;
      for_each_weight(while_loading, [&](const std::string&, const Weight& w) { expected.push_back(w); });
      size_t i = 0, packed_count = 0;
      for_each_weight(from_folder, [&](const std::string& tensor, const Weight& w) {
        EXPECT_TRUE(same_bytes(w, expected[i++])) << name << " " << name_of(type) << " " << tensor << " " << name_of(w.dtype);
        packed_count += is_packed(w.dtype);
      });
      EXPECT_EQ(i, expected.size());
      EXPECT_GT(packed_count, 5u);
      EXPECT_EQ(from_folder.config.attention_scale, while_loading.config.attention_scale) << name;
      EXPECT_EQ(from_folder.rope_frequency, while_loading.rope_frequency) << name;
      EXPECT_EQ(from_folder.config.rope.layout, while_loading.config.rope.layout) << name;
      EXPECT_EQ(from_folder.config.rope.magnitude, while_loading.config.rope.magnitude) << name;
      EXPECT_EQ(from_folder.config.end_tokens, while_loading.config.end_tokens) << name;
      EXPECT_EQ(from_folder.config.begin_token, while_loading.config.begin_token) << name;
    }
}

TEST(PackModel, ExpertsLieTogetherOnPages) {
  const test::Folder folder;
  const ModelSource source(golden("deepseek_v2_lite"));
  pack(source, folder.path(), recipe(DType::w4));
  const ModelSource packed(folder.path());
  const Checkpoint checkpoint = packed.checkpoint();
  int experts = 0;
  for (const auto& [name, gate] : checkpoint.tensors) {
    if (name.find(".experts.") == name.npos || !name.ends_with("gate_proj.weight")) continue;
    const std::string at = name.substr(0, name.size() - std::strlen("gate_proj.weight"));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(gate.data) % 4096, 0u) << name;  // the file is mapped at a page
    const std::byte* next = gate.data;
    for (const char* matrix : {"gate_proj", "up_proj", "down_proj"})
      for (const char* part : {"", "_scale", "_sum"}) {
        const StoredTensor& t = checkpoint.tensors.at(at + matrix + ".weight" + part);
        EXPECT_EQ(t.data, next) << at << matrix << part;
        next = t.data + t.bytes;
      }
    ++experts;
  }
  EXPECT_GT(experts, 3);
  for (const auto& [name, t] : checkpoint.tensors) {
    if (t.dtype != DType::u8 || name.starts_with("padding.")) continue;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data) % 64, 0u) << name;
  }
}

TEST(PackModel, AStoppedRunGoesOnAndEndsTheSame) {
  struct Stop {};
  const ModelSource source(golden("deepseek_v2_lite"));
  const test::Folder whole, stopped;
  pack(source, whole.path(), recipe(DType::w4));
  PackOptions options = recipe(DType::w4);
  for (const double share : {0.3, 0.7}) {
    options.progress = [&](int64_t done, int64_t all, int64_t) {
      if (double(done) > share * double(all)) throw Stop{};
    };
    EXPECT_THROW(pack(source, stopped.path(), options), Stop);
    for (const auto& entry : fs::directory_iterator(stopped.path())) EXPECT_NE(entry.path().extension(), ".part");
    EXPECT_FALSE(fs::exists(stopped.path() / "config.json"));
  }
  int64_t kept = -1;
  options.progress = [&](int64_t, int64_t, int64_t already) { kept = already; };
  std::vector<fs::path> shards;
  for (const auto& entry : fs::directory_iterator(stopped.path()))
    if (entry.path().extension() == ".safetensors") shards.push_back(entry.path());
  ASSERT_GT(shards.size(), 0u);
  const auto before = fs::last_write_time(shards[0]);
  pack(source, stopped.path(), options);
  EXPECT_GT(kept, 0);
  EXPECT_EQ(fs::last_write_time(shards[0]), before);
  for (const auto& entry : fs::directory_iterator(whole.path()))
    EXPECT_EQ(read_text(entry.path()), read_text(stopped.path() / entry.path().filename())) << entry.path();
}

TEST(PackModel, ADamagedShardIsMadeAgain) {
  const ModelSource source(golden("llama"));
  const test::Folder folder;
  const PackingReport report = pack(source, folder.path(), recipe(DType::w4));
  ASSERT_GT(report.shards.size(), 1u);
  const fs::path shard = folder.path() / report.shards[1].file;
  const std::string good = read_text(shard);
  std::string bad = good;
  bad[bad.size() / 2] ^= 1;
  write_atomically(shard, [&](std::ostream& out) { out << bad; });
  pack(source, folder.path(), recipe(DType::w4));
  EXPECT_EQ(read_text(shard), good);
}

TEST(PackModel, AFolderOfSomethingElseIsLeftAlone) {
  const ModelSource source(golden("llama"));
  const test::Folder folder;
  folder.write("letter.txt", "dear");
  EXPECT_THAT(test::error_of([&] { pack(source, folder.path(), recipe(DType::w4)); }),
              testing::HasSubstr("is not empty (it holds letter.txt)"));
  const test::Folder begun;
  pack(source, begun.path(), recipe(DType::w4));
  EXPECT_THAT(test::error_of([&] { pack(source, begun.path(), recipe(DType::w8)); }), testing::HasSubstr("cannot be continued"));
  EXPECT_THAT(test::error_of([&] { pack(ModelSource(begun.path()), folder.path() / "again", recipe(DType::w8)); }),
              testing::HasSubstr("is packed already"));
}

TEST(PackModel, ADiskThatFailsIsAnErrorAndLeavesNothing) {
  const test::Folder folder;
  const std::vector<PlannedTensor> tensors{{"a", DType::f32, {1 << 20}, 64}};
  fs::create_symlink("/dev/full", folder.path() / "full.safetensors.part");
  const std::string message = test::error_of([&] {
    SafetensorsWriter out(folder.path() / "full.safetensors", tensors);
    out.write(std::vector<std::byte>(4 << 20));
    out.finish();
  });
  EXPECT_THAT(message, testing::AllOf(testing::HasSubstr("cannot write"), testing::HasSubstr("No space left on device")));
  EXPECT_FALSE(fs::exists(folder.path() / "full.safetensors"));
  EXPECT_FALSE(fs::is_symlink(folder.path() / "full.safetensors.part"));
}

TEST(PackModel, MemoryStaysBelowTwoLayers) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer counts allocations itself";
#endif
  ModelConfig config = ModelSource(golden("llama")).config();
  config.dim = 512, config.heads = config.kv_heads = 8, config.head_dim = 64, config.ffn_dim = 4096, config.vocab = 20'000,
  config.layers = 3;
  const std::vector<uint16_t> values(size_t(config.vocab * config.dim), f32_to_bf16(0.5f));  // all tensors share them
  Checkpoint checkpoint;
  Params<int> params = make_params<int>(config);
  for_each_param(config, params, [&](const std::string& name, Shape s, Role, int&) {
    const std::vector<int64_t> shape = s.cols == 1 ? std::vector{s.rows} : std::vector{s.rows, s.cols};
    checkpoint.tensors[name] = {DType::bf16, shape, {}, reinterpret_cast<const std::byte*>(values.data()), size_t(s.rows * s.cols) * 2};
  });
  const test::Folder folder;
  PackOptions options = recipe(DType::w4);
  options.shard_bytes = 1 << 30;
  const auto weights = weights_of(config, checkpoint);
  allocated = most_allocated = 0;
  counting = true;
  const PackingReport report = pack_model(config, *weights, folder.path(), options);
  counting = false;
  const int64_t layer = (sum_of(report).bytes - parts_of(report).at("embedding").bytes * 2) / config.layers;
  EXPECT_GT(layer, 3 << 20);
  EXPECT_LT(most_allocated, 2 * layer);
  EXPECT_GT(most_allocated, 1 << 20) << "nothing was counted";
}

TEST(PackModel, RandomWeightsOfAShape) {
  const test::Folder folder;
  ModelConfig config = ModelSource(golden("deepseek_v3")).config();
  PackOptions options = recipe(DType::w4);
  pack_model(config, *random_weights("tiny", 1), folder.path(), options);
  const std::string text = config_json(config, "w4");
  write_atomically(folder.path() / "config.json", [&](std::ostream& out) { out << text; });
  const ModelSource source(folder.path());
  const Model model = load_model(source.config(), source.checkpoint());  // checks sums and scales
  EXPECT_EQ(model.params.embed.dtype, DType::w8);
}

}  // namespace
}  // namespace hadal
