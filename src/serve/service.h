// What the server answers: routes, and replies on their way from the engine to a client.
#pragma once
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "infer/grammar.h"
#include "model/chat_template.h"
#include "model/prompt.h"
#include "model/tokenizer.h"
#include "serve/adapter_shelf.h"
#include "serve/dialect.h"
#include "serve/engine_thread.h"
#include "serve/gate.h"
#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/workers.h"

namespace hadal {

struct ModelEntry;
struct ToolUse;

struct ServiceOptions {
  std::string name;                // of the model, as clients call it
  std::string version;             // of the program
  GateOptions gate;                // who is let in, what is logged
  std::vector<std::string> stops;  // of every reply, beside those of its request
  Sampling sampling;               // for what a request leaves open; its seed counts up
  int64_t most_requests = 256;     // running and waiting together; more are told to come back
  // Adapters at the start, name and folder. adapter_folder: whence clients may load others; empty: they may not change any
  std::vector<std::pair<std::string, std::filesystem::path>> adapters;
  std::filesystem::path adapter_folder;
};

class Service {  // one model. The first of a server takes all calls, and hands those to the others that name them or their adapters
 public:
  // chat_template empty: a base model, which has no chat. failed: see EngineThread. first: of the same server, which outlives this one;
  // null: this is it. Error: as Engine's; a name that is taken
  Service(ServiceOptions options, Tokenizer tokenizer, std::optional<ChatTemplate> chat_template, const Model& model,
          const EngineOptions& engine, std::function<void(const std::string&)> failed, Service* first = nullptr);
  void handle(HttpCall call, const std::shared_ptr<HttpReply>& to);  // on the server's thread: what takes time goes to workers
  void drain() { draining_ = true; }                                 // from now on /ready says no and nothing new is begun
  std::string reload() { return gate_.reload(); }
  int64_t room() const;  // tokens of prompt and reply

 private:
  using Answer = void (Service::*)(const HttpCall&, const std::shared_ptr<HttpReply>&);
  struct Route {
    const char *method, *path;
    Answer answer;
  };
  static const Route routes[];
  static const Route& route_of(const HttpCall& call);  // ApiError 404, 405

  template <class Work>
  void attempt(const HttpCall& call, const std::shared_ptr<HttpReply>& reply, const Work& work);  // Errors become answers
  template <const Dialect& dialect>
  void complete(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
    start(call, dialect.parse(call.body, options_.sampling), dialect, reply);
  }
  void count(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void embed(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void models(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void model_cards(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void load_adapter(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void unload_adapter(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void tokenizer_info(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void tokenize(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void detokenize(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void apply_template(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void health(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void ready(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void metrics(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);
  void version(const HttpCall& call, const std::shared_ptr<HttpReply>& reply);

  void answer(const std::shared_ptr<HttpReply>& reply, int status, std::string json, HttpHeaders headers = {});

  std::shared_ptr<const Adapter> check_model(
      const std::string& name) const;                          // the adapter of that name; none: the model itself. ApiError 404
  void check_may_change_adapters(const HttpCall& call) const;  // ApiError 403
  bool serves(const std::string& name) const { return name == options_.name || adapters_.find(name); }
  Service& service_for(const HttpCall& call);
  std::vector<ModelEntry> own_models() const, all_models() const;  // with their adapters; of all services
  const ChatTemplate& chat_template() const;
  Prompt prompt_of(const TextOrTokens& text) const;
  struct Shown {  // to the template
    std::vector<Message> messages;
    std::string tools;
  };
  Shown shown_of(const Call& call) const;
  std::vector<Prompt> prompts_of(const Call& call) const;
  void take_places(const HttpCall& from, int64_t requests);  // until its visit leaves. ApiError: no room for so many more
  // expire: the call's time is over, whatever of its requests still runs is cancelled. From the server's thread
  void submit(const HttpCall& from, std::vector<Request> requests, std::function<void()> expire, const std::shared_ptr<HttpReply>& reply);
  struct Constraint {  // see Request
    std::shared_ptr<const Grammar> grammar;
    std::vector<int32_t> free_until;
  };
  Constraint constraint_of(const Call& call, const ToolUse& use, bool after_reasoning);
  void start(const HttpCall& from, const Call& call, const Dialect& dialect, const std::shared_ptr<HttpReply>& reply);

  struct Shared {  // of all services of a server
    explicit Shared(const GateOptions& options) : gate(options, metrics) {}
    Metrics metrics;
    Gate gate;
    std::atomic<bool> draining{false};
    std::atomic<int64_t> requests{0};  // of the engines, and those on their way there
    std::atomic<uint64_t> started{0};  // replies without a seed of their own
  };

  const ServiceOptions options_;
  Service& first_;
  std::vector<Service*> others_;  // of the first
  const std::shared_ptr<Shared> shared_;
  const ModelConfig& config_;
  const std::shared_ptr<const ExpertLoad> load_;  // null: no mixture
  const Tokenizer tokenizer_;
  const std::optional<ChatTemplate> chat_template_;
  const std::vector<int32_t> end_tokens_;
  Grammars grammars_;
  const int64_t created_;
  Metrics& metrics_;  // of shared_, as what follows
  Gate& gate_;
  std::atomic<bool>& draining_;
  std::atomic<int64_t>& requests_;
  std::atomic<uint64_t>& started_;
  EngineThread engine_;               // ends first: its requests point here
  const std::string card_;            // JSON
  AdapterShelf adapters_;             // its thread answers calls
  std::unique_ptr<Workers> workers_;  // of the first: for all. They end before what they work with
};

}  // namespace hadal
