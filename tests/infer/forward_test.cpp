// The forward pass against the recorded logits of the published implementation (tests/golden/make.py), fed whole, in chunks of five
// and one row at a time; and a loader that names what does not fit.
#include "infer/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "core/error.h"
#include "infer/draft_layer.h"
#include "model/source.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

struct Golden {
  std::string name;
  std::vector<int32_t> ids, greedy;
  std::vector<float> logits;  // [ids, vocab]
  float tolerance;            // 2e-4 for f32 weights, 2e-2 for others
};

template <class T>
std::vector<T> read_vector(const StoredTensor& t) {
  std::vector<T> values(size_t(t.count()));
  std::memcpy(values.data(), t.data, values.size() * sizeof(T));
  return values;
}

std::vector<int32_t> read_ids(const StoredTensor& t) {
  const std::vector<int64_t> wide = read_vector<int64_t>(t);
  return {wide.begin(), wide.end()};
}

fs::path folder() { return fs::path(HADAL_SOURCE) / "tests" / "golden"; }

Golden read_golden(const std::string& name) {
  const Checkpoint file = open_checkpoint(folder() / name / "golden.safetensors");
  return {name, read_ids(file.tensors.at("ids")), read_ids(file.tensors.at("greedy")), read_vector<float>(file.tensors.at("logits")),
          read_vector<float>(file.tensors.at("tolerance")).at(0)};
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder()))
    if (fs::exists(entry.path() / "golden.safetensors")) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

ModelSource source_of(const std::string& name) {
  const fs::path gguf = folder() / name / "model.gguf";
  return ModelSource(fs::exists(gguf) ? gguf : folder() / name / "model");
}

struct Runner {  // one sequence
  const Model& model;
  KvCache kv;
  Scratch scratch;
  KvRows rows;
  Runner(const Model& m, DType cache) : model(m), kv(m.config, cache, 256), scratch(m.config, 64, 64) {}

  std::vector<float> feed(std::span<const int32_t> tokens) {
    EXPECT_TRUE(kv.reserve(rows, rows.length + int64_t(tokens.size())));
    const Segment segment{&rows, 0, int64_t(tokens.size()), rows.length};
    std::vector<int32_t> wanted(tokens.size());
    for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = int32_t(i);
    const Mat<float> logits = forward(model, {tokens, {&segment, 1}, wanted}, kv, scratch);
    return {logits.data, logits.data + logits.rows * logits.cols};
  }
};

std::vector<float> feed_in_chunks(const Model& model, DType cache, std::span<const int32_t> ids, size_t chunk) {
  Runner runner(model, cache);
  std::vector<float> all;
  for (size_t first = 0; first < ids.size(); first += chunk) {
    const std::vector<float> part = runner.feed(ids.subspan(first, std::min(chunk, ids.size() - first)));
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float most = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::isfinite(a[i]) ? std::max(most, std::abs(a[i] - b[i])) : INFINITY;
  return most;
}

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, LogitsEqualThePublishedImplementation) {
  const Golden golden = read_golden(GetParam());
  const ModelSource source = source_of(golden.name);
  Model model = load_model(source.config(), source.checkpoint());
  const bool exact = model.params.embed.dtype == DType::f32;
  EXPECT_FLOAT_EQ(golden.tolerance, exact ? 2e-4f : 2e-2f);
  for (const int64_t expand_rows : {int64_t(1) << 40, int64_t(1), int64_t(4)}) {
    if (model.config.attention == AttentionKind::gqa && expand_rows == 4) continue;
    model.mla_expand_rows = expand_rows;
    for (const size_t chunk : {golden.ids.size(), size_t(5), size_t(1)}) {
      const std::vector<float> logits = feed_in_chunks(model, exact ? DType::f32 : DType::f16, golden.ids, chunk);
      EXPECT_LE(largest_difference(logits, golden.logits), golden.tolerance)
          << "chunks of " << chunk << ", expanding from " << expand_rows << " rows";
    }
  }
}

// Row by row, in chunks, and all at once: the draft layer has a cache of its own that must be fed every position.
TEST(DraftLayer, LogitsEqualTheReference) {
  const Checkpoint file = open_checkpoint(folder() / "deepseek_v3_bf16" / "golden.safetensors");
  const std::vector<int32_t> ids = read_ids(file.tensors.at("ids"));
  const std::vector<float> expected = read_vector<float>(file.tensors.at("draft"));
  const ModelSource source = source_of("deepseek_v3_bf16");
  ModelConfig config = source.config();
  config.load_draft = true;
  const Model model = load_model(config, source.checkpoint());
  for (const size_t chunk : {ids.size() - 1, size_t(5), size_t(1)}) {
    Runner runner(model, DType::f32);
    std::vector<float> all;
    for (size_t first = 0; first + 1 < ids.size(); first += chunk) {
      const size_t rows = std::min(chunk, ids.size() - 1 - first);
      runner.feed(std::span(ids).subspan(first, rows));
      const Segment segment{&runner.rows, 0, int64_t(rows), int64_t(first)};
      std::vector<int32_t> hidden(rows);
      std::iota(hidden.begin(), hidden.end(), 0);
      const Mat<float> logits =
          forward_draft(model, {std::span(ids).subspan(first + 1, rows), {&segment, 1}, hidden}, hidden, runner.kv, runner.scratch);
      all.insert(all.end(), logits.data, logits.data + logits.rows * logits.cols);
      EXPECT_EQ(runner.rows.length, int64_t(first + rows)) << "the sequence is as long as it was";
    }
    EXPECT_LE(largest_difference(all, expected), 2e-2f) << "chunks of " << chunk;
  }
}

TEST_P(Parity, Int8CacheIsClose) {
  const Golden golden = read_golden(GetParam());
  const ModelSource source = source_of(golden.name);
  Model model = load_model(source.config(), source.checkpoint());
  const float largest = std::abs(*std::ranges::max_element(golden.logits, {}, [](float v) { return std::abs(v); }));
  for (const int64_t expand_rows : {int64_t(1) << 40, int64_t(1)}) {
    model.mla_expand_rows = expand_rows;
    const std::vector<float> whole = feed_in_chunks(model, DType::i8, golden.ids, golden.ids.size());
    if (model.config.indexer.heads == 0) {  // which otherwise may choose other keys
      EXPECT_LE(largest_difference(whole, golden.logits), 0.05f * largest) << "expanding from " << expand_rows << " rows";
    }
    EXPECT_EQ(whole, feed_in_chunks(model, DType::i8, golden.ids, 5)) << "chunks of 5, expanding from " << expand_rows << " rows";
  }
}

TEST_P(Parity, GreedyContinuationIsTheSame) {
  const Golden golden = read_golden(GetParam());
  const ModelSource source = source_of(golden.name);
  const Model model = load_model(source.config(), source.checkpoint());
  if (model.params.embed.dtype != DType::f32) GTEST_SKIP() << "the recorded continuation is that of f32 weights";
  Runner runner(model, DType::f32);
  std::vector<float> logits = runner.feed({golden.ids.data(), 8});
  std::vector<int32_t> reply;
  while (reply.size() < golden.greedy.size()) {
    const auto last = logits.end() - model.config.vocab;
    reply.push_back(int32_t(std::max_element(last, logits.end()) - last));
    logits = runner.feed({&reply.back(), 1});
  }
  EXPECT_EQ(reply, golden.greedy);
}

INSTANTIATE_TEST_SUITE_P(Golden, Parity, testing::ValuesIn(golden_names()), [](const auto& info) { return info.param; });

// What load_model says about a checkpoint that was changed by `change`.
template <class F>
std::string complaint(F change) {
  const ModelSource source = source_of("llama");
  Checkpoint checkpoint = source.checkpoint();
  change(checkpoint.tensors);
  try {
    load_model(source.config(), checkpoint);
  } catch (const Error& e) {
    return e.what();
  }
  return "loaded";
}

TEST(LoadModel, NamesTheTensorThatDoesNotFit) {
  EXPECT_EQ(complaint([](auto&) {}), "loaded");
  EXPECT_THAT(
      complaint([](auto& t) { t.erase("model.layers.1.mlp.up_proj.weight"); }),
      testing::AllOf(testing::HasSubstr("model.layers.1.mlp.up_proj.weight is missing"), testing::HasSubstr("expects it with shape [")));
  EXPECT_THAT(complaint([](auto& t) { t["model.layers.9.mlp.up_proj.weight"] = t["model.norm.weight"]; }),
              testing::HasSubstr("model.layers.9.mlp.up_proj.weight with shape ["));
  EXPECT_THAT(complaint([](auto& t) { t["model.norm.weight"].shape[0] += 1; }),
              testing::ContainsRegex("model.norm.weight: expected shape \\[[0-9]+\\], found \\[[0-9]+\\]"));
  EXPECT_EQ(complaint([](auto& t) { t["model.layers.0.self_attn.rotary_emb.inv_freq"] = t["model.norm.weight"]; }), "loaded");
}

TEST(LoadModel, UsesMappedMatricesWhereTheyAre) {
  for (const std::string& name : golden_names()) {
    const ModelSource source = source_of(name);
    const Checkpoint checkpoint = source.checkpoint();
    const Model model = load_model(source.config(), checkpoint);
    const StoredTensor& stored = checkpoint.tensors.at("model.embed_tokens.weight");
    const bool plain = stored.dtype == DType::f32 || stored.dtype == DType::f16 || stored.dtype == DType::bf16;
    const bool aligned = reinterpret_cast<uintptr_t>(stored.data) % size_t(info_of(stored.dtype).block_bytes) == 0;
    EXPECT_EQ(model.params.embed.data == stored.data, plain && aligned && stored.strides.empty()) << name;
  }
}

}  // namespace
}  // namespace hadal
