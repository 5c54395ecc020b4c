#include "serve/service.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "infer/model.h"
#include "model/reply.h"

namespace hadal {
namespace {

constexpr const char* json_type = "application/json";

int64_t now() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// In a time that does not tell how much of it is right.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() != b.size();
  for (size_t i = 0; i < a.size(); ++i) difference |= unsigned(uint8_t(a[i]) ^ uint8_t(b.empty() ? 0 : b[i % b.size()]));
  return difference == 0;
}

std::string reply_id(bool chat) {
  static std::atomic<uint64_t> next{(uint64_t(std::random_device()()) << 32) | std::random_device()()};
  return fmt::format("{}-{:016x}", chat ? "chatcmpl" : "cmpl", next++);
}

std::string sse(const std::string& data) { return "data: " + data + "\n\n"; }

std::string dump(const nlohmann::ordered_json& json) { return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace); }

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

}  // namespace

// All choices of one call. After it has been submitted only the engine's thread touches it.
struct Service::Job : std::enable_shared_from_this<Service::Job> {
  struct Choice {
    ReplyStream text;
    Delta said;  // whole replies: everything; streams: what comes with the next event
    int64_t prompt_tokens, tokens = 0;
    Clock::time_point last = {};  // token
    bool begun = false;
  };

  Job(Service& s, const CompletionCall& c, bool chat, std::shared_ptr<HttpReply> r)
      : service(s), call(c), reply(std::move(r)), head{chat, reply_id(chat), s.options_.name, now()} {}
  ~Job() { service.requests_ -= int64_t(choices.size()); }

  Service& service;
  const CompletionCall call;
  const std::shared_ptr<HttpReply> reply;
  const ReplyHead head;
  std::vector<Choice> choices;
  Usage usage;
  size_t finished = 0;
  bool lost = false;  // nobody reads any more
  const Clock::time_point arrival = Clock::now();

  void send_event(Choice& choice) {
    choice.said.first = head.chat && !choice.begun;
    choice.begun = true;
    lost |= !reply->write(sse(chunk_json(head, choice.said, service.tokenizer_, call.include_usage)));
    choice.said.reasoning.clear(), choice.said.text.clear(), choice.said.logprobs.clear();
  }

  void take(Choice& choice, const std::vector<ReplyPiece>& pieces) {
    for (const ReplyPiece& piece : pieces)
      (piece.kind == ReplyPiece::Kind::reasoning ? choice.said.reasoning : choice.said.text) += piece.text;
  }

  bool on_token(Choice& choice, const Token& token) {
    if (++choice.tokens == 1)
      service.metrics_.prompt_read(choice.prompt_tokens, seconds_since(arrival));
    else
      service.metrics_.token_followed(seconds_since(choice.last));
    choice.last = Clock::now();
    if (!token.logprobs.empty()) choice.said.logprobs.push_back(token.logprobs);
    take(choice, choice.text.push(token.id));
    const bool news = !choice.said.text.empty() || !choice.said.reasoning.empty() || !choice.said.logprobs.empty();
    if (call.stream && news && !choice.text.stopped()) send_event(choice);
    return !choice.text.stopped() && !lost;
  }

  void on_finish(Choice& choice, Finish how) {
    if (!choice.text.stopped()) take(choice, choice.text.finish());
    choice.said.finish = how == Finish::length ? "length" : "stop";
    usage.reply += choice.tokens;
    service.metrics_.reply_ended(choice.tokens, seconds_since(arrival));
    if (how == Finish::cancelled || lost) {
      if (++finished == choices.size()) service.metrics_.answered(499);
      return;
    }
    if (call.stream) send_event(choice);
    if (++finished < choices.size()) return;
    if (!call.stream) {
      std::vector<Delta> said;
      for (Choice& one : choices) said.push_back(std::move(one.said));
      return service.answer(reply, 200, whole_json(head, said, usage, service.tokenizer_));
    }
    if (call.include_usage) reply->write(sse(usage_chunk_json(head, usage)));
    service.metrics_.answered(200);
    reply->write(sse("[DONE]"));
    reply->close();
  }
};

Service::Service(ServiceOptions options, Tokenizer tokenizer, std::optional<ChatTemplate> chat_template, const Model& model,
                 const EngineOptions& engine, std::function<void(const std::string&)> failed)
    : options_(std::move(options)),
      config_(model.config),
      tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      end_tokens_(end_tokens(config_, tokenizer_)),
      created_(now()),
      engine_(model, engine, std::move(failed)) {}

const Service::Route Service::routes[] = {
    {"POST", "/v1/chat/completions", &Service::chat},
    {"POST", "/v1/completions", &Service::complete},
    {"GET", "/v1/models", &Service::models},
    {"POST", "/tokenize", &Service::tokenize},
    {"POST", "/detokenize", &Service::detokenize},
    {"POST", "/apply-template", &Service::apply_template},
    {"GET", "/health", &Service::health},
    {"GET", "/ready", &Service::ready},
    {"GET", "/metrics", &Service::metrics},
    {"GET", "/version", &Service::version},
};

void Service::handle(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  try {
    std::string allowed;
    const std::string one_model = "/v1/models/" + options_.name;
    for (const Route& route : routes) {
      if (call.path != route.path && !(route.answer == &Service::models && call.path == one_model)) continue;
      if (call.method == route.method) {
        if (call.path.starts_with("/v1/")) check_key(call);
        return (this->*route.answer)(call, reply);
      }
      allowed = route.method;
    }
    if (allowed.empty()) throw ApiError(404, fmt::format("there is no {}", call.path), "", "not_found");
    const ApiError error(405, fmt::format("{}: expected the method {}, found {}", call.path, allowed, call.method));
    answer(reply, 405, error.json(), {{"Allow", allowed}});
  } catch (const ApiError& error) {
    HttpHeaders headers;
    if (error.status == 429 || error.status == 503) headers.push_back({"Retry-After", "1"});
    if (error.status == 401) headers.push_back({"WWW-Authenticate", "Bearer"});
    answer(reply, error.status, error.json(), std::move(headers));
  } catch (const Error& error) {  // the engine's and the template's words about what they were given
    answer(reply, 400, ApiError(400, error.what()).json());
  }
}

void Service::check_key(const HttpCall& call) const {
  if (options_.api_key.empty() || same_secret(call.authorization, "Bearer " + options_.api_key)) return;
  throw ApiError(401, "the API key is missing or wrong: expected the header Authorization: Bearer KEY", "", "invalid_api_key");
}

void Service::check_model(const std::string& name) const {
  if (name.empty() || name == options_.name) return;
  throw ApiError(404, fmt::format("model: there is no '{}' here, only '{}'", name, options_.name), "model", "model_not_found");
}

const ChatTemplate& Service::chat_template() const {
  if (!chat_template_) throw ApiError(400, "this is a base model without a chat template: use /v1/completions");
  return *chat_template_;
}

int64_t Service::room() const { return config_.forgets() ? engine_.cache_rows() : std::min(engine_.cache_rows(), config_.context); }

void Service::chat(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const ChatCall asked = parse_chat_call(call.body, options_.sampling);
  check_model(asked.model);
  start(asked, true, false, {chat_prompt(tokenizer_, chat_template(), asked.messages, asked.template_variables)}, reply);
}

void Service::complete(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const TextCall asked = parse_text_call(call.body, options_.sampling);
  check_model(asked.model);
  std::vector<Prompt> prompts;
  for (const TextOrTokens& prompt : asked.prompts) {
    if (const auto* text = std::get_if<std::string>(&prompt))
      prompts.push_back(raw_prompt(tokenizer_, *text));
    else
      prompts.push_back({std::get<std::vector<int32_t>>(prompt)});
  }
  start(asked, false, asked.echo, prompts, reply);
}

void Service::start(const CompletionCall& call, bool chat, bool echo, const std::vector<Prompt>& prompts,
                    const std::shared_ptr<HttpReply>& reply) {
  if (draining_) throw ApiError(503, "the server is shutting down");
  const int64_t count = int64_t(prompts.size()) * call.choices;
  if (requests_ + count > options_.most_requests)
    throw ApiError(429,
                   fmt::format("{} requests are running or waiting: more than {} are not taken", requests_.load(), options_.most_requests));
  call.sampling.check(config_.vocab);
  std::vector<std::string> stops = call.stops;
  stops.insert(stops.end(), options_.stops.begin(), options_.stops.end());
  const auto job = std::make_shared<Job>(*this, call, chat, reply);
  requests_ += count;
  job->choices.reserve(size_t(count));
  for (const Prompt& prompt : prompts) {
    job->usage.prompt += int64_t(prompt.tokens.size());
    for (int64_t i = 0; i < call.choices; ++i) {
      job->choices.push_back({ReplyStream(tokenizer_, stops, prompt.starts_in_reasoning, chat), {}, int64_t(prompt.tokens.size())});
      job->choices.back().said.choice = int64_t(job->choices.size()) - 1;
      if (echo) job->choices.back().said.text = tokenizer_.decode(prompt.tokens);
    }
  }
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) {
    Request request;
    request.prompt = prompts[size_t(i / call.choices)].tokens;
    request.sampling = call.sampling;
    request.sampling.seed += call.seeded ? uint64_t(i % call.choices) : started_++;
    request.max_tokens = call.max_tokens > 0 ? call.max_tokens : room();
    request.logprobs = call.logprobs;
    request.stop_tokens = end_tokens_;
    Job::Choice* choice = &job->choices[size_t(i)];
    request.on_token = [job, choice](const Token& token) { return job->on_token(*choice, token); };
    request.on_finish = [job, choice](Finish how) { job->on_finish(*choice, how); };
    engine_.check(request);
    requests.push_back(std::move(request));
  }
  if (call.stream) reply->open("text/event-stream");
  std::vector<uint64_t> ids;
  ids.reserve(requests.size());
  for (Request& request : requests) ids.push_back(engine_.submit(std::move(request)));
  reply->when_gone([this, ids] {
    for (const uint64_t id : ids) engine_.cancel(id);
  });
}

void Service::models(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const bool all = call.path == "/v1/models";
  answer(reply, 200, all ? models_json(options_.name, created_, room()) : model_json(options_.name, created_, room()));
}

void Service::tokenize(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const std::vector<int32_t> tokens = raw_prompt(tokenizer_, parse_text(call.body)).tokens;
  answer(reply, 200, dump({{"tokens", tokens}, {"count", tokens.size()}}));
}

void Service::detokenize(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const std::vector<int32_t> tokens = parse_tokens(call.body);
  for (const int32_t token : tokens)
    if (token >= config_.vocab) throw ApiError(400, fmt::format("tokens: expected ids below {}, found {}", config_.vocab, token), "tokens");
  answer(reply, 200, dump({{"content", tokenizer_.decode(tokens)}}));
}

void Service::apply_template(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  answer(reply, 200, dump({{"prompt", chat_text(tokenizer_, chat_template(), parse_messages(call.body))}}));
}

void Service::health(const HttpCall&, const std::shared_ptr<HttpReply>& reply) { answer(reply, 200, dump({{"status", "ok"}})); }

void Service::ready(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  if (draining_) throw ApiError(503, "the server is shutting down");
  answer(reply, 200, dump({{"status", "ready"}, {"requests", requests_.load()}}));
}

void Service::metrics(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  metrics_.answered(200);
  reply->send(200, "text/plain; version=0.0.4", metrics_.text(requests_));
}

void Service::answer(const std::shared_ptr<HttpReply>& reply, int status, std::string json, HttpHeaders headers) {
  metrics_.answered(status);
  reply->send(status, json_type, std::move(json), std::move(headers));
}

void Service::version(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  answer(reply, 200, dump({{"version", options_.version}}));
}

}  // namespace hadal
