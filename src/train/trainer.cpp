#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "model/source.h"
#include "model/write_config.h"
#include "train/losses.h"
#include "train/schedule.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

constexpr size_t remembered_losses = 50;
constexpr int64_t most_returns = 3;  // without a step beyond the one that failed

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + int64_t(values.size() / 2));
  return values[values.size() / 2];
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * 4096;
}

// Steps behind the state that a run goes on from will be taken again.
void cut_log(const fs::path& file, int64_t last) {
  if (!fs::exists(file)) return;
  std::istringstream in(read_text(file));
  write_atomically(file, [&](std::ostream& out) {
    for (std::string line; std::getline(in, line);)
      if (!(std::atoll(line.c_str()) > last)) out << line << '\n';
  });
}

Params<Tensor> first_params(const TrainConfig& config) {
  if (config.from.empty()) return initial_params(config.model, config.seed);
  return load_params(config.model, ModelSource(config.from).checkpoint());
}

}  // namespace

Tensor draft_loss(const Params<Tensor>& params, const Tensor& x, const Examples& e, const Pass& pass) {
  const Tensor y = draft_forward(params, x, e.tokens, pass);
  return next_token_loss(params, params.drafts[0].norm, y, e.targets.slice(1, 1), e.weights.slice(1, 1), pass.config);
}

Objective next_token(const TrainConfig& config) {
  return [draft_weight = config.draft_weight](const Params<Tensor>& params, const Examples& e, const Pass& pass) {
    const Tensor x = forward(params, e.tokens, pass);
    Tensor loss = next_token_loss(params, params.norm, x, e.targets, e.weights, pass.config);
    if (pass.config.load_draft && draft_weight > 0) loss = loss + draft_weight * draft_loss(params, x, e, pass);
    return loss;
  };
}

Trainer::Trainer(const TrainConfig& config, Objective objective, const RunHooks& hooks, Ranks ranks, std::vector<NamedTensor> beside)
    : config_(config),
      objective_(std::move(objective)),
      hooks_(hooks),
      ranks_(std::move(ranks)),
      encoder_(config.tokenizer),
      feed_(config.data, config, encoder_, ranks_, hooks),
      params_(first_params(config)),
      beside_(std::move(beside)) {
  if (feed_.rows() % ranks_.size != 0) throw Error("a batch of {} rows: expected a multiple of {} programs", feed_.rows(), ranks_.size);
  const int64_t rows = feed_.rows() / ranks_.size;
  if (config_.micro_rows == 0) config_.micro_rows = rows;
  if (rows % config_.micro_rows != 0) throw Error("{} rows of a batch: expected a multiple of micro_rows, {}", rows, config_.micro_rows);
  if (!config.evaluation.empty()) evaluation_ = std::make_unique<Feed>(config.evaluation, config, encoder_, ranks_, hooks);
  if (ranks_.divide_experts()) keep_own_experts(config.model, params_, ranks_);
  optimizer_ = std::make_unique<Optimizer>(learning(), config.optimizer, type());
  if (config.ema > 0) average_ = copy(config.model, params_);
  if (config.model.moe.experts > 0) {
    const auto sum = [this](Tensor& t) {
      std::vector<Tensor> one{t};
      ranks_.sum(one);
      t = one[0];
    };
    balancer_ = std::make_unique<Balancer>(config.balance, config.model, ranks_.size > 1 ? sum : Balancer::SumOverRanks());
  }
}

Pass Trainer::pass_of(Memory* memory) const {
  Pass pass{.config = config_.model};
  pass.recompute = config_.recompute;
  pass.memory = memory;
  if (balancer_) pass.balance = [this](const Routing& routing, int64_t layer) { return balancer_->loss(routing, layer); };
  pass.divided = ranks_.divide_experts() ? &ranks_ : nullptr;
  pass.indexer_weight = config_.model.indexer.heads > 0 ? config_.indexer_weight : 0;
  return pass;
}

Trainer::Outcome Trainer::step(int64_t batch) {
  const int64_t rows = feed_.rows() / ranks_.size, micros = rows / config_.micro_rows;
  const bool remembers = config_.segments > 1;
  if (remembers && feed_.starts_text(batch)) {
    Memory empty;
    empty.rows = config_.memory;
    state_.memories.assign(size_t(micros), empty);
  }
  const Params<Tensor> cast_params = cast(config_.model, params_, type());
  const double counted = std::max(1., feed_.counted(batch));
  if (balancer_) balancer_->begin_step(micros * ranks_.size);
  Tensor loss = torch::zeros({});
  for (int64_t micro = 0; micro < micros; ++micro) {
    const Examples examples = feed_.read(batch, ranks_.rank * rows + micro * config_.micro_rows, config_.micro_rows);
    const Tensor part = objective_(cast_params, examples, pass_of(remembers ? &state_.memories[size_t(micro)] : nullptr)) / counted;
    part.backward();
    loss += part.detach();
  }
  return finish_gradients(loss, counted);
}

Trainer::Outcome Trainer::finish_gradients(Tensor loss, double counted) {
  std::vector<Tensor> common, own;  // own: of this rank's experts, which have seen the rows of all ranks
  for (const NamedTensor& t : learning())
    if (t.tensor.requires_grad()) (ranks_.divide_experts() && is_expert(t.name) ? own : common).push_back(t.tensor);
  Tensor square = torch::full({}, std::pow(gradient_norm(own), 2), torch::kDouble);
  if (ranks_.size > 1) {
    std::vector<Tensor> sums{loss, square};
    for (const Tensor& p : common) {
      if (!p.grad().defined()) p.mutable_grad() = torch::zeros_like(p);
      sums.push_back(p.grad());
    }
    ranks_.sum(sums);
    loss = sums[0], square = sums[1];
  }
  const double norm = std::hypot(gradient_norm(common), std::sqrt(square.item<double>()));
  common.insert(common.end(), own.begin(), own.end());
  clip_gradients(common, norm, config_.optimizer.clip);
  return {loss.item<double>(), norm, counted};
}

double Trainer::evaluate() const {
  const torch::NoGradGuard no_grad;
  const Params<Tensor> cast_params = cast(config_.model, params_, type());
  double loss = 0, counted = 0;
  Memory memory;
  for (int64_t batch = 0; batch < config_.evaluate_batches; ++batch) {
    if (evaluation_->starts_text(batch)) memory = {.rows = config_.memory};
    const Examples e = evaluation_->read(batch, 0, evaluation_->rows());
    const Tensor x = forward(cast_params, e.tokens, pass_of(config_.segments > 1 ? &memory : nullptr));
    loss += next_token_loss(cast_params, cast_params.norm, x, e.targets, e.weights, config_.model).item<double>();
    counted += e.weights.sum().item<double>();
  }
  return loss / std::max(1., counted);
}

std::vector<NamedTensor> Trainer::learning() const {
  std::vector<NamedTensor> all = named(config_.model, params_);
  all.insert(all.end(), beside_.begin(), beside_.end());
  return all;
}

std::vector<NamedTensor> Trainer::state_tensors() {
  std::vector<NamedTensor> all = learning();
  for (const NamedTensor& t : optimizer_->state()) all.push_back(t);
  if (config_.ema > 0)
    for (const NamedTensor& t : named(config_.model, average_)) all.push_back({"average." + t.name, t.role, t.tensor});
  return all;
}

void Trainer::save() {
  const std::vector<NamedTensor> tensors = gather(state_tensors(), config_.model, ranks_);
  if (ranks_.rank != 0) return;
  RunState state = state_;
  if (feed_.starts_text(state.step + state.skipped)) state.memories.clear();
  save_state(state_folder(config_.output, state.step), state, tensors);
  const std::vector<int64_t> steps = saved_steps(config_.output);
  for (size_t i = 0; i + size_t(config_.keep) < steps.size(); ++i) fs::remove_all(state_folder(config_.output, steps[i]));
}

// Each rank has memories of its own rows, and the first alone saves: so where texts begin, and there are none.
bool Trainer::can_save() const { return ranks_.size == 1 || feed_.starts_text(state_.step + state_.skipped); }

void Trainer::load(int64_t step) {
  const fs::path folder = state_folder(config_.output, step);
  state_ = load_state(folder, state_tensors());
  if (!can_save() && state_.step < config_.schedule.steps)
    throw Error("{} was left within texts, whose memories one program has: expected 1 program, found {}", folder.string(), ranks_.size);
}

void Trainer::resume() {
  const std::vector<int64_t> steps = saved_steps(config_.output);
  if (steps.empty()) return;
  load(steps.back());
  if (ranks_.rank == 0) cut_log(config_.output / "log.csv", state_.step);
}

// Far above what the last steps were, or no number.
bool Trainer::leapt(const Outcome& outcome) const {
  if (!std::isfinite(outcome.loss) || !std::isfinite(outcome.gradient_norm)) return true;
  if (state_.losses.size() < remembered_losses) return false;
  const double middle = median(state_.losses);
  std::vector<double> distances;
  for (const double each : state_.losses) distances.push_back(std::abs(each - middle));
  // A hard question where nearly all are known is harmless, and so are a few tokens that were thought impossible, at 10 each.
  return outcome.loss > middle + std::max({12 * 1.4826 * median(distances), 0.5 * middle, 0.1, 30 / outcome.counted});
}

// To the newest state; the batches since then are left out.
void Trainer::go_back(double loss) {
  const int64_t failed = state_.step;
  returns_ = failed > furthest_ ? 1 : returns_ + 1;
  furthest_ = std::max(furthest_, failed);
  const std::vector<int64_t> steps = saved_steps(config_.output);
  if (returns_ > most_returns || steps.empty())
    throw Error("the loss at step {} is {}, after {} attempts with other data: a lower learning rate may help; the last state is {}",
                failed, loss, most_returns, steps.empty() ? "none" : state_folder(config_.output, steps.back()).string());
  const int64_t skipped = state_.skipped;
  load(steps.back());
  if (ranks_.rank == 0) cut_log(config_.output / "log.csv", state_.step);
  // Whole texts are left out, so that memories and batches fit together.
  const int64_t left_out = skipped + failed + 1 - state_.step - state_.skipped;
  state_.skipped += (left_out + config_.segments - 1) / config_.segments * config_.segments;
}

void Trainer::note(const StepReport& report) const {
  if (ranks_.rank != 0) return;
  const fs::path file = config_.output / "log.csv";
  const bool fresh = !fs::exists(file);
  std::ofstream out(file, std::ios::app);
  if (fresh) out << "step,loss,evaluation,learning_rate,gradient_norm,tokens_per_second,spread\n";
  out << report.step << ',' << report.loss << ',';
  if (report.evaluation >= 0) out << report.evaluation;
  out << ',' << report.learning_rate << ',' << report.gradient_norm << ',' << report.tokens_per_second << ',' << report.spread << '\n';
  if (!out) throw Error("cannot write {}", file.string());
  if (hooks_.report) hooks_.report(report);
}

// What follows from a step's gradients.
void Trainer::learn(const Outcome& outcome, double share) {
  optimizer_->step(share);
  optimizer_->zero_gradients();
  if (balancer_) balancer_->finish_step(params_, share);
  if (config_.ema > 0) {
    const torch::NoGradGuard no_grad;
    const std::vector<NamedTensor> from = named(config_.model, params_), to = named(config_.model, average_);
    for (size_t i = 0; i < from.size(); ++i) to[i].tensor.lerp_(from[i].tensor, 1 - config_.ema);
  }
  ++state_.step;
  if (outcome.loss != 0) state_.losses.push_back(outcome.loss);  // 0: a batch of segments in which nothing counts
  if (state_.losses.size() > remembered_losses) state_.losses.erase(state_.losses.begin());
}

RunResult Trainer::run() {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const int64_t first = state_.step, batch_tokens = feed_.rows() * config_.length;
  fs::create_directories(config_.output);
  if (state_.step == 0 && saved_steps(config_.output).empty()) save();
  RunResult result;
  bool due = false, stopping = false;  // due: a state
  while (state_.step < config_.schedule.steps) {
    stopping = stopping || any(ranks_, hooks_.stop && hooks_.stop());
    if (stopping && can_save()) break;
    const double share = rate_share(config_.schedule, state_.step);
    const Outcome outcome = step(state_.step + state_.skipped);
    StepReport report;
    report.steps = config_.schedule.steps;
    report.loss = outcome.loss;
    report.gradient_norm = outcome.gradient_norm;
    report.learning_rate = share * config_.optimizer.learning_rate;
    if (leapt(outcome)) {
      optimizer_->zero_gradients();
      go_back(outcome.loss);
      report.note = fmt::format("the loss was {:.3f}: went back to step {}", outcome.loss, state_.step);
      report.step = state_.step;
      if (ranks_.rank == 0 && hooks_.report) hooks_.report(report);
      continue;
    }
    learn(outcome, share);
    if (balancer_) report.spread = balancer_->worst().spread;
    const bool last = state_.step == config_.schedule.steps;
    if (evaluation_ && (last || (config_.evaluate_every > 0 && state_.step % config_.evaluate_every == 0)))
      report.evaluation = result.evaluation = evaluate();
    report.step = state_.step;
    report.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    report.tokens_per_second = double((state_.step - first) * batch_tokens) / report.seconds;
    report.resident = resident_bytes();
    note(report);
    due = due || last || state_.step % config_.save_every == 0;
    if (due && (last || can_save())) {
      save();
      due = false;
    }
  }
  result.steps = state_.step;
  result.tokens = state_.step * batch_tokens;
  if (!state_.losses.empty()) result.loss = state_.losses.back();
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  result.finished = state_.step == config_.schedule.steps;
  if (!result.finished) save();
  if (result.finished) save_model(result.model = config_.output / "model");
  return result;
}

void Trainer::save_model(const fs::path& folder) const {
  const Params<Tensor> whole = gather(config_.ema > 0 ? average_ : params_, config_.model, ranks_);
  if (ranks_.rank != 0) return;
  fs::create_directories(folder);
  write_text_side(config_.tokenizer, config_.model, folder);
  save_params(config_.model, whole, config_.type, folder / "model.safetensors");
}

void expect_new(const TrainConfig& config, bool resume) {
  if (!resume && !saved_steps(config.output).empty())
    throw Error("{} holds the states of a run: go on with --resume, or name another output", config.output.string());
}

RunResult train(const TrainConfig& config, bool resume, const RunHooks& hooks) { return train(config, resume, hooks, {}); }

RunResult train(const TrainConfig& config, bool resume, const RunHooks& hooks, Ranks ranks) {
  expect_new(config, resume);
  Trainer trainer(config, next_token(config), hooks, std::move(ranks));
  if (resume) trainer.resume();
  return trainer.run();
}

}  // namespace hadal::train
