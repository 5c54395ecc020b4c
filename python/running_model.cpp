#include "python/running_model.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "core/pool.h"
#include "eval/logits.h"
#include "infer/kv_cache.h"
#include "model/config_rules.h"
#include "model/prompt.h"

namespace hadal {
namespace {

constexpr int64_t most_together = 256;  // replies in one pass
std::atomic<int> models_in_use{0};

ModelConfig with_masks(ModelConfig config, const Masks& masks) {
  if (masks.window > 0) config.attention_window = masks.window;
  if (masks.sinks > 0) config.attention_sinks = masks.sinks;
  if (masks.top_blocks > 0) config.attention_top_blocks = masks.top_blocks;
  check_config(config, "these options");
  return config;
}

Drafting drafting_of(const std::string& name) {
  if (name == "off") return Drafting::off;
  if (name == "lookup") return Drafting::lookup;
  if (name == "mtp") return Drafting::mtp;
  if (name == "auto") return Drafting::automatic;
  throw Error("draft: expected off, lookup, mtp or auto, found \"{}\"", name);
}

Recipe recipe_of(const ModelOptions& options) {
  Recipe recipe;
  if (!options.weights.empty()) recipe.weights = parse_weight_type(options.weights);
  if (!options.keep.empty() && !recipe.weights) throw Error("keep says what is kept from being packed: expected weights beside it");
  for (const auto& [pattern, type] : options.keep) recipe.keep.emplace_back(pattern, parse_weight_type(type));
  return recipe;
}

DType cache_of(const std::string& name, const Model& model) {
  if (name.empty()) return natural_cache(model);
  if (name == "i8") return DType::i8;
  if (name == "f16") return DType::f16;
  if (name == "f32") return DType::f32;
  throw Error("cache: expected i8, f16 or f32, found \"{}\"", name);
}

void use_threads(int count) {
  if (count == 0 || count == pool().threads()) return;
  if (count < 1 || count > 1024) throw Error("threads: expected 1 to 1024, found {}", count);
  if (models_in_use > 0)
    throw Error("threads: a model of this process computes with {} already, and all share them: expected no other number while it is there",
                pool().threads());
  set_pool_threads(count);
}

Model load(const ModelSource& source, const ModelOptions& options, const Masks& masks) {
  if (options.context < 0) throw Error("context: expected 1 or more, found {}", options.context);
  if (options.replies < 1 || options.replies > most_together)
    throw Error("replies: expected 1 to {}, found {}", most_together, options.replies);
  if (options.chunk < 1 || options.chunk > 1 << 20) throw Error("chunk: expected 1 to {}, found {}", 1 << 20, options.chunk);
  const Recipe recipe = recipe_of(options);
  const Drafting drafting = drafting_of(options.draft);
  ModelConfig config = source.config();
  with_masks(config, masks);  // a wish that cannot be had is told before the weights are read
  const Checkpoint checkpoint = source.checkpoint();
  if (drafting == Drafting::mtp || drafting == Drafting::automatic) config.load_draft = has_draft_layer(config, checkpoint);
  if (drafting == Drafting::mtp && !config.load_draft)
    throw Error("draft mtp: this checkpoint has no draft layer; draft lookup needs none");
  use_threads(options.threads);
  return load_model(config, checkpoint, {.recipe = recipe, .experts_on_disk = false, .progress = {}});
}

Model masked_copy(const Model& model, ModelConfig config) {
  Model copy = model;
  copy.config = std::move(config);
  return copy;
}

}  // namespace

LoadedModel::LoadedModel(const std::string& reference, const ModelOptions& o, const Masks& masks)
    : options(o),
      source(resolve_model(reference)),
      tokenizer(source.tokenizer()),
      chat_template(source.chat_template()),
      model(load(source, options, masks)),
      end_tokens(hadal::end_tokens(model.config, tokenizer)),
      cache(cache_of(options.cache, model)) {
  ++models_in_use;
}

LoadedModel::~LoadedModel() { --models_in_use; }

ModelConfig LoadedModel::masked(const Masks& masks) const { return with_masks(model.config, masks); }

RunningModel::RunningModel(std::shared_ptr<const LoadedModel> loaded, const Masks& masks)
    : loaded_(std::move(loaded)), model_(masked_copy(loaded_->model, loaded_->masked(masks))) {}

RunningModel::~RunningModel() { close(); }

std::shared_ptr<RunningModel> RunningModel::masked(const Masks& masks) const { return std::make_shared<RunningModel>(loaded_, masks); }

EngineThread& RunningModel::engine() {
  if (closed_) throw Error("the model is closed");
  if (engine_) return *engine_;
  const ModelOptions& options = loaded_->options;
  const int64_t context = options.context > 0 ? options.context : model_.config.context;
  const int64_t affordable = int64_t(available_memory() / 2) / KvCache::bytes_per_row(model_.config, loaded_->cache);
  EngineOptions engine;
  engine.cache = loaded_->cache;
  engine.cache_rows = std::min(context * options.replies, std::max(affordable, KvCache::page_rows));
  engine.sequences = options.replies;
  engine.prompt_chunk = options.chunk;
  engine.max_rows = options.chunk + most_together;
  engine.drafting = drafting_of(options.draft);
  engine_ = std::make_unique<EngineThread>(
      model_, engine, [](int64_t) {}, [this](const std::string& what) { fail_all("the engine failed: " + what); });
  return *engine_;
}

uint64_t RunningModel::submit(Request request, const std::shared_ptr<ReplyQueue>& queue) {
  request.on_token = [queue](const Token& token) { return queue->on_token(token); };
  request.on_finish = [queue](Finish how) { queue->on_finish(how); };
  const std::lock_guard lock(mutex_);
  EngineThread& running = engine();
  running.check(request);
  {
    const std::lock_guard queues(queues_mutex_);
    if (!failure_.empty()) throw Error("{}", failure_);
    std::erase_if(queues_, [](const auto& one) { return one.expired(); });
    queues_.push_back(queue);
  }
  return running.submit(std::move(request));
}

void RunningModel::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  if (engine_) engine_->cancel(id);
}

void RunningModel::fail_all(const std::string& problem) {
  const std::lock_guard queues(queues_mutex_);
  failure_ = problem;
  for (const auto& one : queues_)
    if (const auto queue = one.lock()) queue->fail(problem);
}

void RunningModel::logits(std::span<const int32_t> tokens, float* out) const {
  const int64_t count = int64_t(tokens.size());
  if (count > model_.config.context && !model_.config.forgets())
    throw Error("{} tokens do not fit the model's context of {}", count, model_.config.context);
  FeedOptions feeding;
  feeding.cache = loaded_->cache;
  feeding.chunk = loaded_->options.chunk;
  Feeder feeder(model_, feeding, count);
  feeder.run(tokens, 0, count, [&](int64_t row, Mat<float> logits) {
    for (int64_t r = 0; r < logits.rows; ++r)
      std::memcpy(out + (row + r) * logits.cols, logits.row(r), size_t(logits.cols) * sizeof(float));
  });
}

int64_t RunningModel::room() {
  const std::lock_guard lock(mutex_);
  const int64_t rows = engine().cache_rows();
  return model_.config.forgets() ? rows : std::min(rows, model_.config.context);
}

void RunningModel::close() {
  std::unique_ptr<EngineThread> ended;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    ended = std::move(engine_);
  }
  ended.reset();  // waits for the pass that runs
  fail_all("the model was closed while it wrote this reply");
}

}  // namespace hadal
