// The loop on real data: it learns, goes on bit for bit where it was stopped, and comes back from a loss that leaps.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/error.h"
#include "core/files.h"
#include "infer/forward.h"
#include "model/source.h"
#include "small_run.h"
#include "train/curves.h"
#include "train/losses.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class TrainerTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("hadal_trainer_{}", getpid());
    setenv("HADAL_CACHE", (folder_ / "cache").c_str(), 1);
    if (fs::exists(folder_ / "tokenizer")) return;
    make_small_tokenizer(folder_ / "tokenizer", 320);
  }
  static void TearDownTestSuite() { fs::remove_all(fs::temp_directory_path() / fmt::format("hadal_trainer_{}", getpid())); }

  TrainConfig config(const std::string& name, const std::string& more, const std::string& attention = "") {
    const fs::path file = folder_ / (name + ".toml");
    std::ofstream(file) << "output = '" << (folder_ / name).string() << "'\ntokenizer = 'tokenizer'\nprecision = 'f32'\n"
                        << R"([model]
model_type = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 256
tie_word_embeddings = true
)" << attention << R"(
[[data]]
kind = "world_qa"
rows = 4
tokens = 20000
[optimizer]
learning_rate = 3e-3
)" << more;
    return read_train_config(file);
  }
  fs::path folder_;
};

std::vector<Tensor> tensors(const Trainer& trainer, const TrainConfig& config) {
  std::vector<Tensor> all;
  for (const NamedTensor& t : named(config.model, trainer.params())) all.push_back(t.tensor.detach().clone());
  return all;
}

TEST_F(TrainerTest, PromptsWeighWhatTheFileSays) {
  TrainConfig c = config("weights", "[batch]\nlength = 256\n[schedule]\nsteps = 1\n");
  c.data[0].whole_rows = true;
  const Encoder encoder(c.tokenizer);
  const Examples answers = Feed(c.data, c, encoder, {}, {}).read(0, 0, 4);
  c.data[0].prompt_weight = 0.25;
  const Examples all = Feed(c.data, c, encoder, {}, {}).read(0, 0, 4);
  const Tensor counts = answers.weights > 0, filler = (all.tokens == encoder.end_token()) & (all.targets == encoder.end_token());
  EXPECT_GT(filler.sum().item<int64_t>(), 0);
  EXPECT_TRUE(all.weights.masked_select(counts).eq(1).all().item<bool>());
  EXPECT_TRUE(all.weights.masked_select(filler).eq(0).all().item<bool>());
  EXPECT_TRUE(all.weights.masked_select(~counts & ~filler).eq(0.25).all().item<bool>());
}

TEST_F(TrainerTest, LearnsAndItsModelRunsInTheEngine) {
  const TrainConfig c =
      config("learns", "[batch]\nlength = 64\nmicro_rows = 2\n[schedule]\nsteps = 80\nwarmup = 5\n[save]\ntype = 'f32'\n");
  std::vector<double> losses;
  Trainer trainer(c, next_token(c),
                  {.report = [&](const StepReport& r) { losses.push_back(r.loss); }, .preparing = {}, .waiting = {}, .stop = {}});
  const RunResult result = trainer.run();
  ASSERT_EQ(losses.size(), 80u);
  EXPECT_NEAR(losses[0], std::log(320), 0.8) << "it knows nothing at first";
  EXPECT_LT(losses.back(), losses[0] - 1);
  EXPECT_TRUE(result.finished);
  EXPECT_EQ(result.tokens, 80 * 4 * 64);

  const ModelSource source(result.model);
  const Model model = load_model(source.config(), source.checkpoint());
  const std::vector<int32_t> ids = source.tokenizer().encode("Anna lives in the house by the river.");
  KvCache kv(model.config, DType::f32, 256);
  Scratch scratch(model.config, 64, 64);
  KvRows rows;
  ASSERT_TRUE(kv.reserve(rows, int64_t(ids.size())));
  const Segment segment{&rows, 0, int64_t(ids.size()), 0};
  const int32_t last = int32_t(ids.size()) - 1;
  const Mat<float> engine = forward(model, {ids, {&segment, 1}, {&last, 1}}, kv, scratch);
  const torch::NoGradGuard no_grad;
  const Tensor tokens = torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())).unsqueeze(0);
  const Tensor ours = logits_of(trainer.params(), forward(trainer.params(), tokens, {.config = c.model}), {.config = c.model})[0][last];
  for (int64_t i = 0; i < ours.numel(); ++i) EXPECT_NEAR(engine.row(0)[i], ours[i].item<float>(), 2e-4);

  draw_curves(c.output / "log.csv", c.output / "curves.svg");
  EXPECT_THAT(read_text(c.output / "curves.svg"), HasSubstr("<polyline"));
}

TEST_F(TrainerTest, GoesOnBitForBit) {
  // Over segments, so that a memory must come back too: step 5 is in the middle of a text.
  const std::string rest = "[batch]\nlength = 32\nsegments = 4\n[schedule]\nsteps = 12\n[save]\nevery = 5\nema = 0.9\n";
  const TrainConfig whole = config("whole", rest, "attention_window = 33\n"), parts = config("parts", rest, "attention_window = 33\n");
  Trainer straight(whole, next_token(whole));
  straight.run();
  int64_t steps = 0;
  {
    Trainer first(parts, next_token(parts),
                  {.report = [&](const StepReport&) { ++steps; }, .preparing = {}, .waiting = {}, .stop = [&] { return steps == 7; }});
    EXPECT_FALSE(first.run().finished);
  }
  fs::remove_all(state_folder(parts.output, 7));  // as if it had been killed behind step 7, its last state that of step 5
  Trainer second(parts, next_token(parts));
  second.resume();
  const RunResult second_result = second.run();
  const std::vector<Tensor> a = tensors(straight, whole), b = tensors(second, parts);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::equal(a[i], b[i])) << i;
  EXPECT_EQ(read_text(whole.output / "model" / "model.safetensors"), read_text(parts.output / "model" / "model.safetensors"));
  Trainer again(parts, next_token(parts));  // of a run that has ended
  again.resume();
  EXPECT_EQ(again.run().loss, second_result.loss);
  EXPECT_GT(second_result.loss, 0);
}

// A batch whose loss is no number, once or always.
Objective broken(const TrainConfig& config, std::function<bool(int64_t batch)> fails) {
  return [whole = next_token(config), fails](const Params<Tensor>& params, const Examples& e, const Pass& pass) {
    const Tensor loss = whole(params, e, pass);
    return fails(e.batch) ? loss * NAN : loss;
  };
}

TEST_F(TrainerTest, LeavesOutABatchWhoseLossIsNoNumber) {
  const TrainConfig c = config("leaps", "[batch]\nlength = 32\n[schedule]\nsteps = 12\n[save]\nevery = 4\n");
  std::string note;
  Trainer trainer(c, broken(c, [](int64_t batch) { return batch == 6; }),
                  {.report = [&](const StepReport& r) { note += r.note; }, .preparing = {}, .waiting = {}, .stop = {}});
  EXPECT_TRUE(trainer.run().finished);
  EXPECT_THAT(note, HasSubstr("went back to step 4"));
  const std::string log = read_text(c.output / "log.csv");
  EXPECT_EQ(std::ranges::count(log, '\n'), 1 + 12) << "each step is there once";
  for (const Tensor& t : tensors(trainer, c)) EXPECT_TRUE(t.isfinite().all().item<bool>());
}

TEST_F(TrainerTest, AFewSurprisingTokensAreNoLeap) {
  const TrainConfig c = config("surprise", "[batch]\nlength = 32\n[schedule]\nsteps = 120\n[save]\nevery = 40\n");
  for (const auto& [surprise, leaps] : {std::pair{20., false}, {2000., true}}) {
    fs::remove_all(c.output);
    double counted = 0;
    const Objective objective = [&, whole = next_token(c)](const Params<Tensor>& params, const Examples& e, const Pass& pass) {
      const Tensor loss = 1e-3 * whole(params, e, pass);
      if (e.batch == 110) counted = e.weights.sum().item<double>();
      return e.batch == 110 ? loss + surprise : loss;
    };
    std::string note;
    Trainer trainer(c, objective, {.report = [&](const StepReport& r) { note += r.note; }, .preparing = {}, .waiting = {}, .stop = {}});
    EXPECT_TRUE(trainer.run().finished);
    EXPECT_GT(counted, 0);
    EXPECT_GT(surprise / counted, 0.1) << "enough in a batch of many tokens";
    EXPECT_EQ(note.find("went back to step 80") != std::string::npos, leaps) << surprise << ": " << note;
  }
}

TEST_F(TrainerTest, GivesUpWhenItNeverIsANumberAndKeepsTheLastState) {
  const TrainConfig c = config("breaks", "[batch]\nlength = 32\n[schedule]\nsteps = 12\n[save]\nevery = 4\n");
  Trainer trainer(c, broken(c, [](int64_t batch) { return batch >= 6; }));
  try {
    trainer.run();
    FAIL() << "it should have given up";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the loss at step"));
    EXPECT_THAT(error.what(), HasSubstr("step-00000004"));
  }
  EXPECT_EQ(saved_steps(c.output), (std::vector<int64_t>{0, 4}));
  Trainer again(c, next_token(c));
  again.resume();
  EXPECT_TRUE(again.run().finished);
}

TEST_F(TrainerTest, MicroBatchesAndRecomputationChangeNothingButTheOrderOfAddition) {
  std::vector<std::vector<Tensor>> results;
  for (const std::string batch : {"", "micro_rows = 1\n", "recompute = true\n"}) {
    const TrainConfig c = config("micro" + std::to_string(results.size()), "[batch]\nlength = 32\n" + batch + "[schedule]\nsteps = 3\n");
    Trainer trainer(c, next_token(c));
    trainer.run();
    results.push_back(tensors(trainer, c));
  }
  for (size_t other = 1; other < results.size(); ++other)
    for (size_t i = 0; i < results[0].size(); ++i) EXPECT_LE((results[0][i] - results[other][i]).abs().max().item<double>(), 2e-4);
}

TEST_F(TrainerTest, RunFilesSayWhatIsWrong) {
  const auto error_of = [&](const std::string& more, const std::string& attention = "") {
    try {
      config("wrong", more, attention);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_THAT(error_of(""), HasSubstr("schedule: expected a table with `steps`"));
  EXPECT_THAT(error_of("[schedule]\nsteps = 0\n"), HasSubstr("steps: expected at least 1, found 0"));
  EXPECT_THAT(error_of("[schedule]\nsteps = 'many'\n"), HasSubstr("steps: expected a whole number"));
  EXPECT_THAT(error_of("[schedule]\nsteps = 3\nsheep = 4\n"), HasSubstr("unknown key 'sheep'"));
  EXPECT_THAT(error_of("[schedule]\nsteps = 3\nshape = 'round'\n"), HasSubstr("expected one of cosine, linear, trapezoid, found round"));
  EXPECT_THAT(error_of("[schedule\n"), HasSubstr("line "));
  EXPECT_THAT(error_of("[schedule]\nsteps = 3\n", "hidden_act = 'gelu'\n"), HasSubstr("hidden_act"));
}

}  // namespace
}  // namespace hadal::train
