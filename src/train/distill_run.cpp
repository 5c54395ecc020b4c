#include "train/distill_run.h"

#include "train/torch.h"

#include <bit>
#include <deque>
#include <map>
#include <optional>
#include <unordered_set>

#include "core/error.h"
#include "core/random.h"
#include "model/source.h"
#include "model/write_config.h"
#include "train/distill.h"
#include "train/logit_cache.h"
#include "train/trainer.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

// Every token must be the same: the student learns the teacher's probability of each by its number.
void expect_same_tokens(const fs::path& teacher, const Tokenizer& theirs, const fs::path& student, const Tokenizer& own) {
  if (theirs.size() != own.size())
    throw Error("distill.teacher: the tokenizer of {} has {} tokens, expected the {} of {}", teacher.string(), theirs.size(), own.size(),
                student.string());
  for (int32_t id = 0; id < own.size(); ++id)
    if (theirs.bytes(id) != own.bytes(id) || theirs.is_special(id) != own.is_special(id))
      throw Error("distill.teacher: token {} of {} is \"{}\", expected \"{}\" as in {}", id, teacher.string(), theirs.bytes(id),
                  own.bytes(id), student.string());
}

class Teacher {
 public:
  explicit Teacher(const TrainConfig& config) : source_(config.distill.teacher), config_(source_.config()) {
    config_.load_draft = false;
    expect_same_tokens(config.distill.teacher, source_.tokenizer(), config.tokenizer, Tokenizer::from_folder(config.tokenizer));
    if (config_.vocab != config.model.vocab)
      throw Error("distill.teacher: {} predicts {} tokens, expected the student's {}", config.distill.teacher.string(), config_.vocab,
                  config.model.vocab);
    const torch::NoGradGuard no_grad;
    const auto type = config.precision == "bf16" ? torch::kBFloat16 : torch::kFloat;
    params_ = cast(config_, load_params(config_, source_.checkpoint()), type);
  }
  const ModelConfig& config() const { return config_; }

  // Of the rows named; with segments behind the memory that `student`, the memory of the student's pass, stands for.
  Predictions predict(const Examples& examples, const Tensor& rows, const Memory* student, std::vector<Tensor>* hidden) {
    const torch::NoGradGuard no_grad;
    Pass pass{.config = config_};
    pass.trace.hidden = hidden;
    if (student) {
      Memory& own = memories_[examples.first_row];
      // A text's first segment; or a run that goes on within a text, where the teacher has forgotten what came before.
      if (student->position == 0 || own.position != student->position)
        own = Memory{.rows = student->rows, .sinks = student->sinks, .position = student->position};
      pass.memory = &own;
    }
    return predictions(params_, forward(params_, examples.tokens, pass), rows, pass);
  }

 private:
  ModelSource source_;
  ModelConfig config_;
  Params<Tensor> params_;
  std::map<int64_t, Memory> memories_;  // of each micro-batch
};

Tensor counted_rows(const Examples& examples) { return examples.weights.flatten().nonzero().squeeze(1); }

uint64_t hash_of_row(const Examples& examples, int64_t row) {
  const Tensor tokens = torch::cat({examples.tokens[row], examples.targets[row].slice(0, -1)}).contiguous();
  const Tensor weights = examples.weights[row].contiguous();
  return hash_row({tokens.data_ptr<int64_t>(), size_t(tokens.numel())}, {weights.data_ptr<float>(), size_t(weights.numel())});
}

uint64_t hash_of_data(const TrainConfig& config) {
  uint64_t hash = mix_bits(config.seed ^ uint64_t(config.length));
  for (const DataConfig& data : config.data)
    for (const uint64_t part : {hash_of_examples(*open_source(data.source)), uint64_t(data.tokens), uint64_t(data.rows),
                                uint64_t(data.whole_rows), std::bit_cast<uint64_t>(data.prompt_weight)})
      hash = mix_bits(hash ^ part);
  return hash;
}

// The losses of one run: what its Objective does.
class Distillation {
 public:
  Distillation(const TrainConfig& config, const DistillHooks& hooks, const Ranks& ranks)
      : config_(config),
        hooks_(hooks),
        encoder_(config.tokenizer),
        teacher_(config),
        hidden_(config.distill.hidden, teacher_.config(), config.model, config.seed) {
    if (!config.distill.cache.empty()) open_cache(config.distill.cache, ranks);
  }

  std::vector<NamedTensor> learnt_beside() const {
    std::vector<NamedTensor> all;
    for (size_t i = 0; i < hidden_.projections().size(); ++i)
      all.push_back({fmt::format("distill.projection.{}", i), Role::matrix, hidden_.projections()[i]});
    return all;
  }

  Tensor operator()(const Params<Tensor>& params, const Examples& examples, const Pass& pass) {
    if (!on_policy(examples)) return lose(params, examples, pass, config_.distill.loss, cache_.has_value());
    const Examples own = own_replies(params, examples);
    const Tensor scale = examples.weights.sum() / own.weights.sum().clamp_min(1);
    return lose(params, own, pass, config_.distill.on_policy_loss, false) * scale;
  }

 private:
  Tensor lose(const Params<Tensor>& params, const Examples& examples, const Pass& pass, const TokenLoss& loss, bool cached) {
    const Tensor rows = counted_rows(examples);
    const Labels labels{examples.targets.flatten().index_select(0, rows), examples.weights.flatten().index_select(0, rows)};
    const bool traces = !hidden_.projections().empty();
    std::vector<Tensor> teacher_states, student_states;
    Predictions teacher;
    if (!cached && (loss.needs_teacher() || traces))
      teacher = teacher_.predict(examples, rows, pass.memory, traces ? &teacher_states : nullptr);
    Pass own = pass;
    if (traces) own.trace.hidden = &student_states;
    const Tensor x = forward(params, examples.tokens, own);
    const Predictions student = predictions(params, x, rows, pass);
    Tensor sum = cached ? token_loss(student, samples_of(examples), labels, loss) : token_loss(student, teacher, labels, loss);
    if (traces && rows.numel() > 0) sum = sum + hidden_(teacher_states, student_states, rows) * labels.weights.sum();
    if (pass.config.load_draft && config_.draft_weight > 0) sum = sum + config_.draft_weight * draft_loss(params, x, examples, pass);
    return sum;
  }

  // The teacher's predictions of each row's tokens that count. What is drawn depends on the row alone.
  std::vector<CachedRow> sample_rows(const Examples& examples) {
    const Predictions teacher = teacher_.predict(examples, counted_rows(examples), nullptr, nullptr);
    const Tensor logits = at::linear(teacher.x.to(teacher.head.scalar_type()), teacher.head).to(torch::kFloat).contiguous();
    std::vector<CachedRow> rows(static_cast<size_t>(examples.tokens.size(0)));
    const float* at = logits.data_ptr<float>();
    for (size_t row = 0; row < rows.size(); ++row) {
      rows[row].hash = hash_of_row(examples, int64_t(row));
      rows[row].samples.resize(size_t(examples.weights[int64_t(row)].count_nonzero().item<int64_t>()));
      const uint64_t seed = mix_bits(rows[row].hash);
      at::parallel_for(0, std::ssize(rows[row].samples), 8, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i)
          rows[row].samples[size_t(i)] = sample_logits({at + i * logits.size(1), size_t(logits.size(1))}, seed + uint64_t(i));
      });
      at += std::ssize(rows[row].samples) * logits.size(1);
    }
    return rows;
  }

  static Examples rows_of(const Examples& e, const std::vector<int64_t>& rows) {
    const Tensor index = torch::tensor(rows, torch::kLong);
    return {e.tokens.index_select(0, index), e.targets.index_select(0, index), e.weights.index_select(0, index), e.batch,
            e.first_row + rows[0]};
  }

  // Batches that were left out behind a loss that leapt reach rows that nobody cached: those are sampled now, as they would have been.
  SampledTeacher samples_of(const Examples& examples) {
    std::vector<LogitSample> all;
    for (int64_t row = 0; row < examples.tokens.size(0); ++row) {
      const uint64_t hash = hash_of_row(examples, row);
      const std::vector<LogitSample> samples = cache_->has(hash) ? cache_->row(hash) : sample_rows(rows_of(examples, {row}))[0].samples;
      all.insert(all.end(), samples.begin(), samples.end());
    }
    const auto n = int64_t(all.size());
    SampledTeacher teacher{torch::empty({n, cached_ids}, torch::kLong), torch::empty({n, cached_ids}), torch::empty({n})};
    for (int64_t i = 0; i < n; ++i) {
      const LogitSample& sample = all[size_t(i)];
      for (int64_t k = 0; k < cached_ids; ++k) {
        teacher.ids.data_ptr<int64_t>()[i * cached_ids + k] = sample.ids[size_t(k)];
        teacher.probabilities.data_ptr<float>()[i * cached_ids + k] = float(sample.counts[size_t(k)]) / cached_draws;
      }
      teacher.entropy.data_ptr<float>()[i] = sample.entropy;
    }
    return teacher;
  }

  void open_cache(const fs::path& file, const Ranks& ranks) {
    const CacheKey key{hash_model(config_.distill.teacher), encoder_.hash(), hash_of_data(config_), uint64_t(config_.model.vocab)};
    if (ranks.rank == 0 && !fs::exists(file)) fill_cache(file, key);
    wait_for_all(ranks);
    cache_.emplace(file, key);
  }

  void fill_cache(const fs::path& file, const CacheKey& key) {
    const Feed feed(config_.data, config_, encoder_, {}, hooks_);
    int64_t batch = 0;
    std::unordered_set<uint64_t> known;
    std::deque<CachedRow> ready;
    if (file.has_parent_path()) fs::create_directories(file.parent_path());
    write_logit_cache(file, key, [&](CachedRow& cached) {
      while (ready.empty()) {
        if (batch == config_.schedule.steps) return false;
        if (hooks_.stop && hooks_.stop()) throw Error("stopped");
        ready = sample_unknown(feed.read(batch++, 0, feed.rows()), known);
        if (hooks_.caching) hooks_.caching(batch, config_.schedule.steps);
      }
      cached = std::move(ready.front());
      ready.pop_front();
      return true;
    });
  }

  // Of a batch's rows those that no earlier one had: a later epoch's rows are not asked for again.
  std::deque<CachedRow> sample_unknown(const Examples& batch, std::unordered_set<uint64_t>& known) {
    std::deque<CachedRow> all;
    std::vector<int64_t> rows;
    const auto ask = [&] {
      if (rows.empty()) return;
      std::ranges::move(sample_rows(rows_of(batch, rows)), std::back_inserter(all));
      rows.clear();
    };
    for (int64_t row = 0; row < batch.tokens.size(0); ++row) {
      if (known.insert(hash_of_row(batch, row)).second) rows.push_back(row);
      if (std::ssize(rows) == config_.micro_rows) ask();
    }
    ask();
    return all;
  }

  bool on_policy(const Examples& examples) const {
    if (config_.distill.on_policy == 0 || examples.batch < config_.distill.refresh) return false;  // at first it has nothing to say
    const uint64_t bits = mix_bits(mix_bits(config_.seed ^ uint64_t(examples.batch)) ^ uint64_t(examples.first_row));
    return double(bits >> 11) * 0x1p-53 < config_.distill.on_policy;
  }

  // As many rows as the micro-batch has, from the newest replies.
  Examples own_replies(const Params<Tensor>& params, const Examples& examples) {
    const int64_t round = examples.batch / config_.distill.refresh;
    if (round != round_) reply(params, round);
    const int64_t rows = examples.tokens.size(0), length = config_.length;
    const auto first = size_t(examples.batch * 7919 + examples.first_row);
    Tensor tokens = torch::full({rows, length + 1}, encoder_.end_token(), torch::kLong), weights = torch::zeros({rows, length + 1});
    int64_t longest = 2;
    for (int64_t row = 0; row < rows; ++row) {
      const EncodedExample& example = replies_[(first + size_t(row)) % replies_.size()];
      for (size_t i = 0; i < example.tokens.size(); ++i) {
        tokens.data_ptr<int64_t>()[row * (length + 1) + int64_t(i)] = example.tokens[i];
        weights.data_ptr<float>()[row * (length + 1) + int64_t(i)] = float(example.weights[i]);
      }
      longest = std::max(longest, int64_t(example.tokens.size()));
    }
    return {tokens.slice(1, 0, longest - 1).contiguous(), tokens.slice(1, 1, longest).contiguous(),
            weights.slice(1, 1, longest).contiguous(), examples.batch, examples.first_row};
  }

  void reply(const Params<Tensor>& params, int64_t round) {
    const fs::path model = config_.output / "replying";
    fs::create_directories(model);
    write_text_side(config_.tokenizer, config_.model, model);
    save_params(config_.model, params, DType::bf16, model / "model.safetensors");
    replies_.clear();
    for (const Example& example : hooks_.reply(model, round)) {
      EncodedExample encoded = encoder_.encode(example);
      if (int64_t(encoded.tokens.size()) <= config_.length + 1) replies_.push_back(std::move(encoded));
    }
    if (replies_.empty()) throw Error("distill.on_policy: no reply of the student fits a row of {} tokens", config_.length);
    round_ = round;
  }

  TrainConfig config_;
  DistillHooks hooks_;
  Encoder encoder_;
  Teacher teacher_;
  HiddenLoss hidden_;
  std::optional<LogitCache> cache_;
  std::vector<EncodedExample> replies_;
  int64_t round_ = -1;  // that the replies are of
};

void check(const TrainConfig& config, const DistillHooks& hooks) {
  const DistillConfig& d = config.distill;
  if (d.teacher.empty()) throw Error("{}: expected a table [distill] with a teacher, found none", config.file.string());
  d.check();
  if (d.on_policy > 0 && !hooks.reply)
    throw Error("distill.on_policy: replies of the student come from `hadal distill`, which is one program; expected no such table here");
  if (config.segments == 1) return;
  if (!d.cache.empty()) throw Error("distill.cache: expected batch.segments = 1, found {}: rows are cached alone", config.segments);
  if (d.on_policy > 0)
    throw Error("distill.on_policy: expected batch.segments = 1, found {}: replies are texts of their own", config.segments);
}

}  // namespace

RunResult distill(const TrainConfig& config, bool resume, const DistillHooks& hooks) { return distill(config, resume, hooks, {}); }

RunResult distill(const TrainConfig& config, bool resume, const DistillHooks& hooks, Ranks ranks) {
  check(config, hooks);
  expect_new(config, resume);
  const auto distillation = std::make_shared<Distillation>(config, hooks, ranks);
  const Objective objective = [distillation](const Params<Tensor>& params, const Examples& examples, const Pass& pass) {
    return (*distillation)(params, examples, pass);
  };
  Trainer trainer(config, objective, hooks, std::move(ranks), distillation->learnt_beside());
  if (resume) trainer.resume();
  return trainer.run();
}

}  // namespace hadal::train
