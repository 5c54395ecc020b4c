// Adapters in the engine: a request with one gets the same bits alone and among others, whatever theirs are.
#include "infer/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "core/random.h"
#include "infer/engine.h"
#include "infer/expert_store.h"
#include "model/safetensors_writer.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;

// An adapter of every linear layer of `config`, as files.
fs::path write_adapter(const ModelConfig& config, const std::string& name, int64_t rank, uint64_t seed) {
  const fs::path folder = fs::path(testing::TempDir()) / ("hadal_adapter_" + name);
  fs::create_directories(folder);
  std::ofstream(folder / "adapter_config.json") << R"({"peft_type": "LORA", "r": 4, "lora_alpha": 4})";
  Params<Weight> params = make_params<Weight>(config);
  std::vector<PlannedTensor> tensors;
  for_each_param(config, params, [&](const std::string& parameter, Shape shape, Role role, Weight&) {
    if (role != Role::matrix || parameter.starts_with("model.layers." + std::to_string(config.layers))) return;  // the draft layer has none
    const std::string start = "base_model.model." + parameter.substr(0, parameter.size() - 6);
    tensors.push_back({start + "lora_A.weight", DType::f32, {rank, shape.cols}, 4});
    tensors.push_back({start + "lora_B.weight", DType::f32, {shape.rows, rank}, 4});
  });
  SafetensorsWriter writer(folder / "adapter_model.safetensors", tensors);
  uint64_t state = seed;
  for (const PlannedTensor& t : tensors) {
    std::vector<float> values(size_t(t.shape[0] * t.shape[1]));
    for (float& v : values) v = float(int64_t(mix_bits(++state) % 2001) - 1000) * 5e-4f;
    writer.write(std::as_bytes(std::span(values)));
  }
  writer.finish();
  return folder;
}

struct Reply {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // equal bits mean equal logits
};

Request request_for(Reply& reply, std::shared_ptr<const Adapter> adapter, int i) {
  Request request;
  for (int64_t t = 0; t < 1 + i * 37 % 90; ++t)
    request.prompt.push_back(int32_t((t % 11 * 31 + i * 17) % 97));  // repeats: there is something to guess
  request.sampling.temperature = i % 3 == 0 ? 0.f : 0.9f;
  request.sampling.seed = uint64_t(i);
  request.max_tokens = 10 + i % 5;
  request.logprobs = 0;
  request.adapter = std::move(adapter);
  request.on_token = [&reply](const Token& token) {
    reply.tokens.push_back(token.id);
    reply.logprobs.push_back(token.logprobs.at(0).logprob);
    return true;
  };
  return request;
}

class AdaptersOfEveryKind : public testing::TestWithParam<NamedConfig> {};

TEST_P(AdaptersOfEveryKind, MixedAdaptersDoNotTouchEachOther) {
  for (const DType type : {DType::f32, DType::w8}) {
    ModelConfig config = GetParam().config;
    config.draft_layers = 1, config.load_draft = true;
    Model model = random_model(config, {.weights = type, .keep = {}}, 1);
    model.mla_expand_rows = 20;  // both algorithms
    const fs::path first = write_adapter(config, GetParam().name + "_1", 4, 1),
                   second = write_adapter(config, GetParam().name + "_2", 9, 2);
    const std::shared_ptr<const Adapter> adapters[] = {nullptr, load_adapter(model, first, "first"), load_adapter(model, second, "second")};
    constexpr int count = 12;
    EngineOptions options{.cache = type == DType::f32 ? DType::f32 : DType::i8,
                          .cache_rows = count * 128,
                          .max_rows = 64,
                          .prompt_chunk = 32,
                          .drafting = Drafting::off,
                          .draft_gain = 0};
    std::vector<Reply> alone(count), plain(count);
    for (int i = 0; i < count; ++i) {
      for (auto* replies : {&alone, &plain}) {
        Engine engine(model, options);
        engine.submit(request_for((*replies)[size_t(i)], replies == &alone ? adapters[i % 3] : nullptr, i));
        while (engine.step()) {
        }
      }
      EXPECT_EQ(alone[size_t(i)].logprobs == plain[size_t(i)].logprobs, i % 3 == 0) << "an adapter is felt, and only where it is asked for";
    }
    for (const Drafting drafting : {Drafting::off, Drafting::lookup, Drafting::mtp}) {
      options.drafting = drafting;
      std::vector<Reply> together(count);
      Engine engine(model, options);
      for (int i = 0; i < count; ++i) engine.submit(request_for(together[size_t(i)], adapters[i % 3], i));
      while (engine.step()) {
      }
      if (drafting == Drafting::mtp) {
        EXPECT_GT(engine.drafts().drafted, 0);
      }
      for (int i = 0; i < count; ++i) {
        EXPECT_EQ(together[size_t(i)].tokens, alone[size_t(i)].tokens) << "request " << i;
        EXPECT_EQ(together[size_t(i)].logprobs, alone[size_t(i)].logprobs) << "request " << i;
      }
    }
  }
}

// All begin alike: what one adapter has made of the beginning is of no use to another.
TEST_P(AdaptersOfEveryKind, WhatIsKnownOfAPromptIsKnownOfOneAdapter) {
  const ModelConfig config = GetParam().config;
  const Model model = random_model(config, DType::f32, 1);
  const std::shared_ptr<const Adapter> adapters[] = {nullptr,
                                                     load_adapter(model, write_adapter(config, GetParam().name + "_3", 4, 3), "first"),
                                                     load_adapter(model, write_adapter(config, GetParam().name + "_4", 4, 4), "second")};
  const EngineOptions options{.cache = DType::f32, .cache_rows = 4096, .max_rows = 128, .prompt_chunk = 64};
  const auto ask = [&](Engine& engine, int adapter) {
    Reply reply;
    Request request = request_for(reply, adapters[adapter], 3);
    request.prompt.clear();
    for (int32_t t = 0; t < 300; ++t) request.prompt.push_back(t * 31 % 97);
    engine.submit(std::move(request));
    while (engine.step()) {
    }
    return reply.logprobs;
  };
  std::vector<std::vector<float>> fresh;
  for (int i = 0; i < 3; ++i) {
    Engine engine(model, options);
    fresh.push_back(ask(engine, i));
  }
  EXPECT_NE(fresh[0], fresh[1]);
  EXPECT_NE(fresh[1], fresh[2]);
  Engine engine(model, options);
  for (const int i : {0, 1, 2, 1, 0, 2}) EXPECT_EQ(ask(engine, i), fresh[size_t(i)]) << "adapter " << i;
}

INSTANTIATE_TEST_SUITE_P(Kinds, AdaptersOfEveryKind, testing::ValuesIn(small_configs()), [](const auto& info) { return info.param.name; });

TEST(Adapter, LivesAsLongAsItsRequests) {
  const ModelConfig config = small_configs()[0].config;
  const Model model = random_model(config, DType::f32, 1);
  const fs::path folder = write_adapter(config, "life", 4, 1);
  std::shared_ptr<const Adapter> adapter = load_adapter(model, folder, "life");
  const std::weak_ptr<const Adapter> watched = adapter;
  Reply before, after;
  Engine engine(model, {.cache = DType::f32, .cache_rows = 512});
  engine.submit(request_for(before, adapter, 1));
  engine.step();
  adapter = load_adapter(model, write_adapter(config, "life", 4, 2), "life");  // the next version, while a request runs with the first
  EXPECT_FALSE(watched.expired());
  engine.submit(request_for(after, adapter, 1));
  while (engine.step()) {
  }
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(before.tokens.size(), after.tokens.size());
  EXPECT_NE(before.logprobs, after.logprobs);
  Reply again;
  Engine other(model, {.cache = DType::f32, .cache_rows = 512});
  other.submit(request_for(again, load_adapter(model, write_adapter(config, "life", 4, 1), "life"), 1));
  while (other.step()) {
  }
  EXPECT_EQ(again.logprobs, before.logprobs) << "the whole reply is of the version that it began with";
}

TEST(Adapter, HasAGenerationOfItsContentAndOneModel) {
  const ModelConfig config = small_configs()[0].config;
  const Model model = random_model(config, DType::f32, 1), twin = random_model(config, DType::f32, 1);
  const fs::path folder = write_adapter(config, "own", 4, 1);
  const auto one = load_adapter(model, folder, "own"), again = load_adapter(model, folder, "other name");
  EXPECT_NE(one->generation, 0u);
  EXPECT_EQ(one->generation, again->generation);
  EXPECT_NE(one->generation, load_adapter(model, write_adapter(config, "own_2", 4, 2), "own")->generation);
  std::ofstream(folder / "adapter_config.json") << R"({"peft_type": "LORA", "r": 4, "lora_alpha": 5})";
  EXPECT_NE(one->generation, load_adapter(model, folder, "own")->generation) << "another scale";
  EXPECT_EQ(one->matrices, 15);  // 7 of each layer, and the head
  EXPECT_EQ(one->largest_rank, 4);
  Engine engine(twin, {.cache = DType::f32, .cache_rows = 512});
  Reply reply;
  try {
    engine.submit(request_for(reply, one, 1));
    FAIL() << "an adapter of another model was taken";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("adapter own was loaded for another model"));
  }
}

TEST(Adapter, StandsBesideExpertsFromDisk) {
  const fs::path folder = fs::path(HADAL_SOURCE) / "tests/golden/deepseek_v2_lite/model";
  const ModelConfig config = read_config(folder);
  std::vector<Reply> replies(2);
  for (const bool disk : {false, true}) {
    Model model = load_model(config, open_checkpoint(folder));
    if (disk)
      model.experts = std::make_shared<ExpertStore>(model, 4 * ExpertStore::slot_bytes(model), Eviction::lru, DiskReader::Path::uring);
    const auto adapter = load_adapter(model, write_adapter(config, "disk", 4, 1), "disk");
    EXPECT_TRUE(adapter->has_experts);
    Engine engine(model, {.cache = DType::f32, .cache_rows = 512, .max_rows = 1, .prompt_chunk = 1});
    engine.submit(request_for(replies[disk], adapter, 1));
    while (engine.step()) {
    }
  }
  EXPECT_EQ(replies[0].tokens.size(), 11u);
  EXPECT_EQ(replies[0].logprobs, replies[1].logprobs);
}

}  // namespace
}  // namespace hadal
