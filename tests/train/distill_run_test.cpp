// Runs with a teacher: the student comes closer whatever both are made of, a cache says the same as the teacher, replies of the student's
// own are learnt from, a stopped run goes on bit for bit, and what does not fit together is named.
#include "train/distill_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "train/torch.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "local_ranks.h"
#include "model/source.h"
#include "model/write_config.h"
#include "small_run.h"
#include "train/trainer.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* dense = R"(
model_type = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 512
tie_word_embeddings = true
)";
constexpr const char* moe = R"(
model_type = "deepseek_v2"
hidden_size = 48
intermediate_size = 64
num_hidden_layers = 3
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 512
first_k_dense_replace = 1
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 8
n_shared_experts = 1
num_experts_per_tok = 2
moe_intermediate_size = 24
moe_layer_freq = 1
topk_method = "greedy"
scoring_func = "softmax"
norm_topk_prob = true
n_group = 1
topk_group = 1
routed_scaling_factor = 1.0
)";
constexpr const char* short_run = "[batch]\nlength = 96\n[schedule]\nsteps = 12\nwarmup = 2\n[save]\nevery = 4\ntype = 'f32'\n";

class DistillRunTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = fs::temp_directory_path() / fmt::format("hadal_distill_{}", getpid());
    fs::create_directories(folder);
    setenv("HADAL_CACHE", (folder / "cache").c_str(), 1);
    make_small_tokenizer(folder / "tokenizer", 320);
  }
  static void TearDownTestSuite() { fs::remove_all(folder); }

  static TrainConfig config(const std::string& name, const std::string& model, const std::string& more) {
    const fs::path file = folder / (name + ".toml");
    std::ofstream(file) << "output = '" << (folder / name).string() << "'\ntokenizer = 'tokenizer'\nprecision = 'f32'\n[model]" << model
                        << "[[data]]\nkind = 'world_qa'\nrows = 4\ntokens = 20000\n[optimizer]\nlearning_rate = 5e-3\ndecay = 0\n"
                        << more;
    return read_train_config(file);
  }
  static std::string teacher(const std::string& name) { return "[distill]\nteacher = '" + name + "'\n"; }

  // A model with random weights, sharper than they come so that there is something to learn.
  static void make_teacher(const std::string& name, const std::string& model, const std::string& tokenizer = "tokenizer",
                           uint64_t seed = 7) {
    const fs::path to = folder / name;
    fs::create_directories(to);
    const TrainConfig c = config(name + "-shape", model, short_run);
    ModelConfig shape = c.model;
    shape.vocab = Tokenizer::from_folder(folder / tokenizer).size();
    Params<Tensor> params = random_params(shape, seed);
    const torch::NoGradGuard no_grad;
    (shape.tied_head ? params.embed : params.head).mul_(3);
    write_text_side(folder / tokenizer, shape, to);
    save_params(shape, params, DType::f32, to / "model.safetensors");
  }

  static std::string error_of(const TrainConfig& config, const DistillHooks& hooks = {}) {
    try {
      distill(config, false, hooks);
    } catch (const Error& e) {
      return e.what();
    }
    return "none";
  }

  static std::string weights(const fs::path& output) { return read_text(output / "model" / "model.safetensors"); }
  static inline fs::path folder;
};

struct Losses {
  std::vector<double> all;
  DistillHooks hooks() {
    DistillHooks h;
    h.report = [this](const StepReport& r) { all.push_back(r.loss); };
    return h;
  }
};

TEST_F(DistillRunTest, StudentComesCloserWhateverBothAreMadeOf) {
  make_teacher("dense-teacher", dense);
  make_teacher("moe-teacher", moe);
  const std::string loss = "hard = 0\nforward = 1\n", run = "[batch]\nlength = 96\n[schedule]\nsteps = 120\nwarmup = 2\n";
  for (const auto& [from, to] : std::vector<std::pair<std::string, const char*>>{{"dense", dense}, {"moe", dense}, {"moe", moe}}) {
    Losses losses;
    const std::string name = from + (to == dense ? "-to-dense" : "-to-moe");
    const RunResult result = distill(config(name, to, run + teacher(from + "-teacher") + loss), false, losses.hooks());
    ASSERT_EQ(losses.all.size(), 120u) << name;
    EXPECT_LT(losses.all.back(), 0.8 * losses.all.front()) << name;
    EXPECT_TRUE(fs::exists(result.model / "model.safetensors")) << name;
  }
}

TEST_F(DistillRunTest, CacheSaysWhatTheTeacherSays) {
  make_teacher("cached-teacher", dense);
  const std::string run = short_run + teacher("cached-teacher") + "hard = 0.2\nforward = 0.8\n";
  Losses live, cached, again;
  distill(config("live", dense, run), false, live.hooks());
  int64_t batches = 0;
  DistillHooks hooks = cached.hooks();
  hooks.caching = [&](int64_t done, int64_t all) {
    EXPECT_EQ(all, 12);
    batches = done;
  };
  distill(config("cached", dense, run + "cache = 'logits'\n"), false, hooks);
  EXPECT_EQ(batches, 12);
  ASSERT_EQ(cached.all.size(), live.all.size());
  for (size_t i = 0; i < live.all.size(); ++i) EXPECT_NEAR(cached.all[i], live.all[i], 0.1 * live.all[i]) << i;

  const std::string before = read_text(folder / "logits");
  hooks = again.hooks();
  hooks.caching = [](int64_t, int64_t) { ADD_FAILURE() << "the teacher is asked again"; };
  distill(config("cached-again", dense, run + "cache = 'logits'\n"), false, hooks);
  EXPECT_EQ(again.all, cached.all);
  EXPECT_EQ(read_text(folder / "logits"), before);

  make_teacher("cached-teacher", dense, "tokenizer", 8);
  EXPECT_THAT(error_of(config("other-teacher", dense, run + "cache = 'logits'\n")), HasSubstr("cached with another teacher"));
  make_teacher("cached-teacher", dense);
  TrainConfig other = config("other-data", dense, run + "cache = 'logits'\n");
  other.seed = 2;
  EXPECT_THAT(error_of(other), HasSubstr("cached with another data"));
}

TEST_F(DistillRunTest, LearnsFromItsOwnRepliesAndGoesOnBitForBit) {
  make_teacher("asked-teacher", moe);
  const std::string run =
      short_run + teacher("asked-teacher") +
      "[[distill.hidden]]\nteacher_layer = 2\nstudent_layer = 1\n[distill.on_policy]\nshare = 1\nrefresh = 3\nreplies = 5\n";
  std::vector<int64_t> rounds;
  const auto hooks = [&] {
    DistillHooks h;
    h.reply = [&](const fs::path& model, int64_t round) {
      const ModelSource source(model);  // a whole model, which an engine could open
      load_params(source.config(), source.checkpoint());
      rounds.push_back(round);
      std::vector<Example> replies(5);
      for (size_t i = 0; i < replies.size(); ++i) {
        replies[i].question = "Where?";
        replies[i].answer = std::string(i, 'x') + std::to_string(round);
      }
      return replies;
    };
    return h;
  };
  distill(config("whole", dense, run), false, hooks());
  EXPECT_THAT(rounds, ElementsAre(1, 2, 3));

  const TrainConfig parts = config("parts", dense, run);
  DistillHooks stops = hooks();
  int64_t steps = 0;
  stops.report = [&](const StepReport& r) { steps = r.step; };
  stops.stop = [&] { return steps == 6; };
  EXPECT_FALSE(distill(parts, false, stops).finished);
  EXPECT_TRUE(distill(parts, true, hooks()).finished);
  EXPECT_EQ(weights(parts.output), weights(folder / "whole"));
}

TEST_F(DistillRunTest, TwoRanksLearnAsOne) {
  make_teacher("shared-teacher", dense);
  const std::string loss = "hard = 0.2\nforward = 0.8\n", hidden = "[[distill.hidden]]\nteacher_layer = 1\nstudent_layer = 1\n";
  for (const bool cached : {false, true}) {
    const std::string name = cached ? "kept" : "asked";
    const auto with = [&](const std::string& ranks) {
      const std::string more = cached ? "cache = 'kept-by" + ranks + "'\n" : hidden;
      return config(name + ranks, moe, short_run + teacher("shared-teacher") + loss + more);
    };
    Losses one;
    distill(with("-one"), false, one.hooks());
    for (const bool divided : {false, true}) {
      const TrainConfig c = with(divided ? "-divided" : "-two");
      Losses two;
      LocalRanks(2).run(divided, [&](const Ranks& r) { distill(c, false, two.hooks(), r); });
      ASSERT_EQ(two.all.size(), one.all.size()) << name;
      for (size_t i = 0; i < one.all.size(); ++i) {  // a routing that tips over makes the rounding of a sum larger, step by step
        const double tolerance = i >= 4 ? 1e-2 : cached ? 1e-3 : 1e-5;
        EXPECT_NEAR(two.all[i], one.all[i], tolerance * one.all[i]) << name << ", step " << i + 1;
      }
    }
  }
  const std::string own = "[distill.on_policy]\nshare = 1\n";
  EXPECT_THAT(error_of(config("asked-itself", dense, short_run + teacher("shared-teacher") + own)), HasSubstr("`hadal distill`"));
}

TEST_F(DistillRunTest, NamesWhatDoesNotFitTogether) {
  make_teacher("good-teacher", dense);
  EXPECT_THAT(error_of(config("none", dense, short_run)), HasSubstr("expected a table [distill] with a teacher"));
  EXPECT_ANY_THROW(config("nowhere", dense, short_run + teacher("nowhere-teacher")));
  fs::create_directories(folder / "empty");
  EXPECT_THAT(error_of(config("empty-teacher", dense, short_run + teacher("empty"))), HasSubstr("empty"));
  make_small_tokenizer(folder / "small-tokenizer", 300);
  make_teacher("small-teacher", dense, "small-tokenizer");
  EXPECT_THAT(error_of(config("small", dense, short_run + teacher("small-teacher"))), HasSubstr("has 300 tokens, expected the 320"));
  EXPECT_THAT(error_of(config("wide", std::string(dense) + "vocab_size = 384\n", short_run + teacher("good-teacher"))),
              HasSubstr("predicts 320 tokens, expected the student's 384"));
  EXPECT_THAT(error_of(config("layer", dense, short_run + teacher("good-teacher") + "[[distill.hidden]]\nteacher_layer = 2\n")),
              HasSubstr("layer 2 of the teacher is out of range"));
  const std::string segments = "[batch]\nlength = 96\nsegments = 2\n[schedule]\nsteps = 12\n" + teacher("good-teacher");
  EXPECT_THAT(error_of(config("segments", dense, segments + "cache = 'other-logits'\n")),
              HasSubstr("expected batch.segments = 1, found 2"));
}

TEST_F(DistillRunTest, SegmentsBehindAMemoryAreLearntFromTheTeachersMemory) {
  make_teacher("remembering-teacher", dense);
  Losses losses;
  distill(config("remembering", dense,
                 "[batch]\nlength = 64\nsegments = 2\n[schedule]\nsteps = 40\nwarmup = 2\n" + teacher("remembering-teacher") +
                     "hard = 0\nforward = 1\n"),
          false, losses.hooks());
  EXPECT_LT(losses.all.back(), 0.8 * losses.all.front());
}

}  // namespace
}  // namespace hadal::train
