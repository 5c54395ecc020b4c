// A model in this process and the engine that writes its replies, from any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "infer/model.h"
#include "model/chat_template.h"
#include "model/source.h"
#include "model/tokenizer.h"
#include "python/reply_queue.h"
#include "serve/engine_thread.h"

namespace hadal {

struct ModelOptions {
  std::string weights, cache, draft = "auto";  // as the commands have them; empty: as stored, as fits the weights
  std::vector<std::pair<std::string, std::string>> keep;
  int64_t context = 0, replies = 8, chunk = 512;  // context: tokens of each of so many replies that have room at a time; 0: the model's
  int threads = 0;                                // 0: every core, or as an earlier model has it
};

struct Masks {  // the caller's, for every layer; 0: the model's own
  int64_t window = 0, sinks = 0, top_blocks = 0;
};

struct LoadedModel {  // what does not change with the masks
  LoadedModel(const std::string& reference, const ModelOptions& options, const Masks& masks);
  ~LoadedModel();
  ModelConfig masked(const Masks& masks) const;  // Error: the model cannot have them

  const ModelOptions options;
  const ModelSource source;
  const Tokenizer tokenizer;
  const std::optional<ChatTemplate> chat_template;
  const Model model;
  const std::vector<int32_t> end_tokens;
  const DType cache;
};

class RunningModel {
 public:
  RunningModel(std::shared_ptr<const LoadedModel> loaded, const Masks& masks);
  ~RunningModel();
  const LoadedModel& loaded() const { return *loaded_; }
  const ModelConfig& config() const { return model_.config; }
  std::shared_ptr<RunningModel> masked(const Masks& masks) const;  // the same weights, another engine

  // `request` without its callbacks, which become the queue's. Error: as Engine::submit, or closed
  uint64_t submit(Request request, const std::shared_ptr<ReplyQueue>& queue);
  void cancel(uint64_t id);
  void logits(std::span<const int32_t> tokens, float* out) const;  // [tokens, vocab]
  int64_t room();                                                  // tokens that one prompt and its reply may have
  void close();  // what runs ends with an Error; the weights stay as long as somebody has them

 private:
  EngineThread& engine();  // made when first needed; with the lock
  void fail_all(const std::string& problem);

  const std::shared_ptr<const LoadedModel> loaded_;
  const Model model_;  // shares the weights
  std::mutex mutex_;   // guards engine_ and closed_
  std::unique_ptr<EngineThread> engine_;
  bool closed_ = false;
  std::mutex queues_mutex_;  // guards what follows
  std::vector<std::weak_ptr<ReplyQueue>> queues_;
  std::string failure_;
};

}  // namespace hadal
