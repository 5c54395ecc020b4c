// Several ranks learn as one, with all experts on each and with the experts divided.
#include "train/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "core/error.h"
#include "local_ranks.h"
#include "model/source.h"
#include "small_run.h"
#include "train/ops.h"
#include "train/trainer.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t experts = 8, active = 3, dim = 16, inner = 24, rows_of_rank = 7;

std::vector<Tensor> leaves(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> all;
  for (const Tensor& t : tensors) all.push_back(t.detach().clone().requires_grad_());
  return all;
}

// gate, up and down of each expert
std::vector<Mlp<Tensor>> as_experts(const std::vector<Tensor>& matrices) {
  std::vector<Mlp<Tensor>> all;
  for (size_t e = 0; e < size_t(experts); ++e) all.push_back({matrices[3 * e], matrices[3 * e + 1], matrices[3 * e + 2]});
  return all;
}

Routing routing(const Tensor& expert, const Tensor& weight) { return {.logits = {}, .scores = {}, .expert = expert, .weight = weight}; }

// Rows of all ranks, what each chose, and what the experts are; one rank's own are a slice.
struct Layer {
  Tensor rows, expert, weight, along;  // along: what the result is multiplied by
  std::vector<Tensor> matrices;
  Layer(int ranks, int64_t choices_from, torch::ScalarType type) {
    torch::manual_seed(9);
    const int64_t n = ranks * rows_of_rank;
    rows = torch::randn({n, dim}).to(type);
    expert = torch::rand({n, choices_from}).argsort(int64_t(1)).slice(1, 0, active);
    weight = torch::rand({n, active});
    along = torch::randn({n, dim});
    for (int64_t e = 0; e < experts; ++e)
      for (const std::vector<int64_t>& shape : {std::vector<int64_t>{inner, dim}, {inner, dim}, {dim, inner}})
        matrices.push_back(torch::randn(shape) * 0.3);
  }
  int64_t crossing(int ranks) const {  // choices of an expert of another rank
    const Tensor of_row = torch::arange(rows.size(0)).div(rows_of_rank, "floor").unsqueeze(1);
    return (expert.div(experts / ranks, "floor") != of_row).sum().item<int64_t>();
  }
};

double difference(const Tensor& a, const Tensor& b) {  // the largest, in parts of b's largest where that is above 1
  const Tensor wide = b.to(torch::kDouble);
  return (a.to(torch::kDouble) - wide).abs().max().item<double>() / std::max(1., wide.abs().max().item<double>());
}

// choices_from: the first so many experts are chosen from; with few of them some ranks have nothing to do.
void check_against_one_rank(int ranks, int64_t choices_from, torch::ScalarType type, double tolerance) {
  const Layer all(ranks, choices_from, type);
  const std::vector<Tensor> whole = leaves({all.rows, all.weight}), matrices = leaves(all.matrices);
  const Tensor out = ops::experts(whole[0], routing(all.expert, whole[1]), as_experts(matrices));
  (out * all.along).sum().backward();

  LocalRanks local(ranks);
  local.run(true, [&](const Ranks& r) {
    const auto part = [&](const Tensor& t) { return t.slice(0, r.rank * rows_of_rank, (r.rank + 1) * rows_of_rank); };
    const int64_t each = experts / ranks, first = 3 * r.rank * each, end = first + 3 * each;
    std::vector<Tensor> own_rows = leaves({part(all.rows), part(all.weight)}), own = leaves(all.matrices);
    for (int64_t i = 0; i < int64_t(own.size()); ++i)
      if (i < first || i >= end) own[size_t(i)] = Tensor();
    const Tensor here = divided_experts(own_rows[0], routing(part(all.expert), own_rows[1]), as_experts(own), r);
    (here * part(all.along)).sum().backward();
    EXPECT_EQ(here.scalar_type(), type);
    EXPECT_LE(difference(here, part(out)), tolerance);
    EXPECT_LE(difference(own_rows[0].grad(), part(whole[0].grad())), tolerance);
    EXPECT_LE(difference(own_rows[1].grad(), part(whole[1].grad())), tolerance);
    for (int64_t i = first; i < end; ++i)
      EXPECT_LE(difference(own[size_t(i)].grad(), matrices[size_t(i)].grad()), tolerance) << "rank " << r.rank << ", matrix " << i;
  });
  // There and back, forward and backward: a row for each choice that crosses. Before, how many rows come for each expert.
  EXPECT_EQ(local.travelled(), 4 * dim * all.crossing(ranks) + ranks * (ranks - 1) * experts / ranks);
}

TEST(DividedExperts, EqualAllExpertsOnOneRank) {
  for (const int ranks : {2, 4, 8})
    for (const int64_t choices_from : {experts, active}) {
      SCOPED_TRACE(fmt::format("{} ranks, choices among {}", ranks, choices_from));
      check_against_one_rank(ranks, choices_from, torch::kFloat, 1e-5);
      check_against_one_rank(ranks, choices_from, torch::kBFloat16, 3e-2);
    }
}

constexpr const char* mixture = R"(
model_type = "deepseek_v3"
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 3
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 256
first_k_dense_replace = 1
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 8
n_shared_experts = 1
num_experts_per_tok = 2
moe_intermediate_size = 24
moe_layer_freq = 1
topk_method = "noaux_tc"
scoring_func = "sigmoid"
norm_topk_prob = true
n_group = 1
topk_group = 1
routed_scaling_factor = 1.0
num_nextn_predict_layers = 1
)";

struct Course {  // of one run
  std::vector<double> losses, spreads;
  std::vector<int64_t> steps;  // that each rank had done at the end
  std::vector<Tensor> biases;  // of the first layer's router, at the end, of each rank
};

class RanksTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = fs::temp_directory_path() / fmt::format("hadal_ranks_{}", getpid());
    setenv("HADAL_CACHE", (folder / "cache").c_str(), 1);
    make_small_tokenizer(folder / "tokenizer", 320);
  }
  static void TearDownTestSuite() { fs::remove_all(folder); }

  static TrainConfig config(const std::string& name, const std::string& more, const std::string& model = mixture) {
    const fs::path file = folder / (name + ".toml");
    std::ofstream(file)
        << "output = '" << (folder / name).string() << "'\ntokenizer = 'tokenizer'\nprecision = 'f32'\n[model]" << model
        << "[[data]]\nkind = 'world_qa'\nrows = 4\ntokens = 20000\n[[evaluation]]\nkind = 'world_qa'\nrows = 2\ntokens = 4000\n"
        << "[optimizer]\nlearning_rate = 3e-3\n[schedule]\nsteps = 24\nwarmup = 5\n"
        << more;
    return read_train_config(file);
  }

  // stop_at: the last rank, and no other, is told to stop behind this step.
  static Course run(const TrainConfig& c, int ranks, bool divided = false, int64_t stop_at = -1) {
    Course course;
    course.steps.resize(size_t(ranks));
    course.biases.resize(size_t(ranks));
    LocalRanks local(ranks);
    local.run(divided, [&](const Ranks& r) {
      int64_t asked = 0;
      RunHooks hooks;
      hooks.report = [&](const StepReport& report) {
        course.losses.push_back(report.loss);
        course.spreads.push_back(report.spread);
      };
      if (r.rank == ranks - 1) hooks.stop = [&] { return asked++ == stop_at; };
      Trainer trainer(c, next_token(c), hooks, ranks == 1 ? Ranks() : r);
      trainer.resume();
      course.steps[size_t(r.rank)] = trainer.run().steps;
      course.biases[size_t(r.rank)] = std::get<Moe<Tensor>>(trainer.params().blocks[1].ffn).bias.clone();
    });
    return course;
  }

  static void expect_same(const std::vector<double>& a, const std::vector<double>& b, double tolerance = 1e-5) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance * b[i]) << "step " << i + 1;
  }

  static std::map<std::string, Tensor> weights(const TrainConfig& c) {
    std::map<std::string, Tensor> all;
    for (const NamedTensor& t : named(c.model, load_params(c.model, ModelSource(c.output / "model").checkpoint()))) all[t.name] = t.tensor;
    return all;
  }
  static void expect_same_model(const TrainConfig& a, const TrainConfig& b, double tolerance) {
    const auto first = weights(a), second = weights(b);
    for (const auto& [name, t] : first) EXPECT_LE(difference(t, second.at(name)), tolerance) << name;
  }
  static inline fs::path folder;
};

TEST_F(RanksTest, LearnAsOneWithAllExpertsAndWithDividedOnes) {
  for (const std::string optimizer : {"adamw", "muon"}) {
    const auto with = [&](const std::string& name) {
      TrainConfig c = config(optimizer + name, "[batch]\nlength = 32\nrecompute = true\n[save]\nema = 0.9\ntype = 'f32'\n");
      c.optimizer.kind = optimizer;
      return c;
    };
    const TrainConfig one = with("one"), two = with("two"), divided = with("divided");
    const Course expected = run(one, 1);
    EXPECT_LT(expected.losses.back(), expected.losses.front() - 0.5);
    expect_same(run(two, 2).losses, expected.losses);
    expect_same(run(divided, 2, true).losses, expected.losses);
    expect_same_model(two, one, 1e-2);
    expect_same_model(divided, one, 1e-2);
  }
}

TEST_F(RanksTest, GoOnWithAnotherNumberWhereOneOfThemWasToldToStop) {
  const std::string more = "[batch]\nlength = 32\n[save]\nevery = 100\n";
  const TrainConfig whole = config("whole", more), parts = config("parts", more);
  const Course expected = run(whole, 1);
  Course found = run(parts, 2, true, 7);
  EXPECT_EQ(found.steps, (std::vector<int64_t>{7, 7}));
  EXPECT_EQ(saved_steps(parts.output), (std::vector<int64_t>{0, 7}));
  for (const auto& [ranks, divided, stop_at] : {std::tuple{4, true, 5}, {1, false, 4}, {2, true, -1}}) {
    const Course next = run(parts, ranks, divided, stop_at);
    found.losses.insert(found.losses.end(), next.losses.begin(), next.losses.end());
  }
  expect_same(found.losses, expected.losses);
}

TEST_F(RanksTest, StopWhereTextsBegin) {
  const TrainConfig c = config("segments", "[batch]\nlength = 32\nsegments = 4\n", std::string(mixture) + "attention_window = 33\n");
  EXPECT_EQ(run(c, 2, false, 6).steps, (std::vector<int64_t>{8, 8}));
  EXPECT_EQ(run(c, 1, false, 2).steps, (std::vector<int64_t>{10}));
  LocalRanks local(2);
  local.run(false, [&](const Ranks& r) {
    Trainer trainer(c, next_token(c), {}, r);
    EXPECT_THROW(trainer.resume(), Error) << "the memories of step 10 are one rank's";
  });
}

TEST_F(RanksTest, BalanceCountsOverAllRanks) {
  struct Case {
    std::string kind, more;
    int64_t micro_rows;  // of one rank: what the two have each, where the loss is of one micro-batch; otherwise all
  };
  for (const Case& c :
       {Case{"article", "weight = 1", 2}, {"switch", "weight = 1", 0}, {"sequence", "weight = 0.1", 0}, {"bias", "rate = 0.01", 0}}) {
    SCOPED_TRACE(c.kind);
    const auto with = [&](const std::string& name, int64_t micro_rows) {
      return config(c.kind + name, fmt::format("[batch]\nlength = 32\nmicro_rows = {}\n[balance]\nkind = '{}'\nz_loss = 1e-3\n{}\n",
                                               micro_rows, c.kind, c.more));
    };
    const Course one = run(with("one", c.micro_rows), 1);
    for (const bool divided : {false, true}) {
      const Course two = run(with(divided ? "divided" : "two", 0), 2, divided);
      expect_same(two.losses, one.losses, 5e-5);
      expect_same(two.spreads, one.spreads);
      for (const Tensor& bias : two.biases) EXPECT_LE(difference(bias, one.biases[0]), 1e-6);
    }
  }
}

TEST_F(RanksTest, QuantileBalancingTakesTheMeanOfTheRanksFits) {
  const auto with = [&](const std::string& name) { return config(name, "[batch]\nlength = 64\n[balance]\nkind = 'quantile'\n"); };
  const Course one = run(with("quantile-one"), 1), two = run(with("quantile-two"), 2),
               none = run(config("unbalanced", "[batch]\nlength = 64\n"), 1);
  EXPECT_TRUE(torch::equal(two.biases[0], two.biases[1]));
  EXPECT_GT(two.biases[0].abs().max().item<double>(), 0.01);
  EXPECT_LT(two.spreads.back(), 0.5 * none.spreads.back());
  EXPECT_NEAR(two.losses.back(), one.losses.back(), 0.02 * one.losses.back());
}

TEST_F(RanksTest, SayWhyExpertsCannotBeDivided) {
  const auto error_of = [](const TrainConfig& c, int size) {
    const Ranks ranks{
        .rank = 0, .size = size, .sum = [](std::vector<Tensor>&) {}, .exchange = [](const Tensor& rows, auto&, auto&) { return rows; }};
    try {
      const Trainer trainer(c, next_token(c), {}, ranks);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  const std::string more = "[batch]\nlength = 32\n";
  TrainConfig c = config("odd", more);
  c.data[0].rows = 6;
  EXPECT_THAT(error_of(c, 3), HasSubstr("8 experts of a layer: expected a multiple of 3 programs"));
  c.model.moe.expert_choice = true;
  EXPECT_THAT(error_of(c, 2), HasSubstr("experts that choose their rows"));
  const std::string dense =
      "\nmodel_type = 'llama'\nhidden_size = 32\nintermediate_size = 64\nnum_hidden_layers = 1\nnum_attention_heads = 2\n";
  EXPECT_THAT(error_of(config("dense", more, dense + "max_position_embeddings = 256\n"), 2), HasSubstr("the model has no experts"));
}

}  // namespace
}  // namespace hadal::train
