#include "serve/service.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <nlohmann/json.hpp>

#include "infer/model.h"
#include "serve/anthropic.h"
#include "serve/embeddings.h"
#include "serve/forms.h"
#include "serve/job.h"
#include "serve/model_card.h"
#include "serve/openai.h"
#include "serve/page.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* json_type = "application/json";

int64_t now() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// %XX for bytes.
std::string decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool coded = text[i] == '%' && i + 2 < text.size() && std::isxdigit(uint8_t(text[i + 1])) && std::isxdigit(uint8_t(text[i + 2]));
    out += coded ? char(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16)) : text[i];
    if (coded) i += 2;
  }
  return out;
}

// Of model=NAME.
std::vector<std::string> names_in_query(std::string_view query) {
  constexpr std::string_view key = "model=";
  if (!query.starts_with(key)) return {};
  return {decoded(query.substr(key.size(), query.find('&') - key.size()))};
}

std::string names_of(const std::vector<ModelEntry>& models) {
  std::string names;
  for (const ModelEntry& model : models) names += (names.empty() ? "" : "', '") + model.id;
  return names;
}

}  // namespace

Service::Service(ServiceOptions options, Tokenizer tokenizer, std::optional<ChatTemplate> chat_template, const Model& model,
                 const EngineOptions& engine, std::function<void(const std::string&)> failed, Service* first)
    : options_(std::move(options)),
      first_(first ? *first : *this),
      shared_(first ? first->shared_ : std::make_shared<Shared>(options_.gate)),
      config_(model.config),
      load_(model.load),
      tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      end_tokens_(end_tokens(config_, tokenizer_)),
      grammars_(tokenizer_, config_.vocab, end_tokens_),
      created_(now()),
      metrics_(shared_->metrics),
      gate_(shared_->gate),
      draining_(shared_->draining),
      requests_(shared_->requests),
      started_(shared_->started),
      engine_(
          model, engine, [this](int64_t rows) { metrics_.passed(rows); }, std::move(failed)),
      card_(model_card_json({options_.name, options_.version, chat_template_.has_value()}, model, engine, engine_.cache_rows())),
      adapters_(model) {
  const auto check_is_free = [](const std::vector<ModelEntry>& taken, const std::string& name) {
    if (std::ranges::find(taken, name, &ModelEntry::id) != taken.end()) throw Error("two models or adapters are called {}", name);
  };
  if (!first) workers_ = std::make_unique<Workers>(2, options_.most_requests);  // one slow call leaves the other to the rest
  if (first) {
    check_is_free(all_models(), options_.name);
    first->others_.push_back(this);
  }
  for (const auto& [name, folder] : options_.adapters) {
    check_is_free(all_models(), name);
    adapters_.put(name, folder);
  }
}

const Service::Route Service::routes[] = {
    {"POST", "/v1/chat/completions", &Service::complete<openai_chat>},
    {"POST", "/v1/completions", &Service::complete<openai_text>},
    {"POST", "/v1/responses", &Service::complete<openai_responses>},
    {"POST", "/v1/embeddings", &Service::embed},
    {"POST", "/v1/messages", &Service::complete<anthropic_messages>},
    {"POST", "/v1/messages/count_tokens", &Service::count},
    {"GET", "/v1/models", &Service::models},
    {"GET", "/v1/model_cards", &Service::model_cards},
    {"POST", "/v1/load_lora_adapter", &Service::load_adapter},
    {"POST", "/v1/unload_lora_adapter", &Service::unload_adapter},
    {"GET", "/tokenizer_info", &Service::tokenizer_info},
    {"POST", "/tokenize", &Service::tokenize},
    {"POST", "/detokenize", &Service::detokenize},
    {"POST", "/apply-template", &Service::apply_template},
    {"GET", "/health", &Service::health},
    {"GET", "/ready", &Service::ready},
    {"GET", "/metrics", &Service::metrics},
    {"GET", "/version", &Service::version},
};

const Service::Route& Service::route_of(const HttpCall& call) {
  std::string allowed;
  for (const Route& route : routes) {
    if (call.path != route.path && !(route.answer == &Service::models && call.path.starts_with("/v1/models/"))) continue;
    if (call.method == route.method) return route;
    allowed = route.method;
  }
  if (allowed.empty()) throw ApiError(404, fmt::format("there is no {}", call.path), "", "not_found");
  ApiError error(405, fmt::format("{}: expected the method {}, found {}", call.path, allowed, call.method));
  error.allowed = allowed;
  throw error;
}

template <class Work>
void Service::attempt(const HttpCall& call, const std::shared_ptr<HttpReply>& reply, const Work& work) {
  const auto refuse = [&](const ApiError& error) {
    HttpHeaders headers;
    if (error.status == 429 || error.status == 503) headers.push_back({"Retry-After", std::to_string(error.retry_after)});
    if (error.status == 401) headers.push_back({"WWW-Authenticate", "Bearer"});
    if (error.status == 405) headers.push_back({"Allow", error.allowed});
    answer(reply, error.status, error_json(call.path, error), std::move(headers));
  };
  try {
    work();
  } catch (const ApiError& error) {
    refuse(error);
  } catch (const Error& error) {  // the engine's and the template's words about what they were given
    refuse(ApiError(400, error.what()));
  } catch (const std::exception&) {  // no memory
    refuse(ApiError(500, "the server failed"));
  }
}

void Service::handle(HttpCall call, const std::shared_ptr<HttpReply>& to) {
  const std::shared_ptr<HttpReply> reply = gate_.open(call, to);
  if (!reply || send_page(call, *reply)) return;
  const auto kept = std::make_shared<const HttpCall>(std::move(call));
  attempt(*kept, reply, [&] {
    if (kept->refusal != 0) throw ApiError(kept->refusal, kept->body);
    const Route& route = route_of(*kept);
    const bool brief = kept->method == "GET";
    if (!brief || kept->path.starts_with("/v1/")) gate_.check_key(*kept);
    if (brief) return (service_for(*kept).*route.answer)(*kept, reply);
    const bool taken = workers_->post([this, kept, reply, answer = route.answer] {
      if (reply->gone()) return;
      attempt(*kept, reply, [&] { (service_for(*kept).*answer)(*kept, reply); });
    });
    if (!taken) throw ApiError(429, "too many requests have come at once");
  });
}

std::shared_ptr<const Adapter> Service::check_model(const std::string& name) const {
  if (name.empty() || name == options_.name) return nullptr;
  if (auto adapter = adapters_.find(name)) return adapter;
  throw ApiError(404, fmt::format("model: there is no '{}' here, only '{}'", name, names_of(all_models())), "model", "model_not_found");
}

const ChatTemplate& Service::chat_template() const {
  if (!chat_template_) throw ApiError(400, "this is a base model without a chat template: use /v1/completions");
  return *chat_template_;
}

int64_t Service::room() const { return config_.forgets() ? engine_.cache_rows() : std::min(engine_.cache_rows(), config_.context); }

Prompt Service::prompt_of(const TextOrTokens& text) const {
  if (const auto* tokens = std::get_if<std::vector<int32_t>>(&text)) return {*tokens};
  return raw_prompt(tokenizer_, std::get<std::string>(text));
}

Service::Shown Service::shown_of(const Call& call) const {
  const ToolUse use = tool_use_of(call, chat_template());
  if (!use.format) return {call.messages, ""};
  return {with_tools(call.messages, use.tools, *use.format), use.format->explained ? use.tools : ""};
}

std::vector<Prompt> Service::prompts_of(const Call& call) const {
  if (!call.messages.empty()) {
    const Shown shown = shown_of(call);
    return {chat_prompt(tokenizer_, chat_template(), shown.messages, call.template_variables, call.reply_start, shown.tools)};
  }
  std::vector<Prompt> prompts;
  for (const TextOrTokens& text : call.prompts) prompts.push_back(prompt_of(text));
  return prompts;
}

void Service::take_places(const HttpCall& from, int64_t requests) {
  if (draining_) throw ApiError(503, "the server is shutting down");
  const int64_t most = options_.most_requests;
  if (requests > most) throw ApiError(400, fmt::format("prompts times n: expected at most {} replies together, found {}", most, requests));
  const int64_t taken = requests_ += requests;
  from.visit->places = std::shared_ptr<const void>(nullptr, [shared = shared_, requests](const void*) { shared->requests -= requests; });
  if (taken > most)
    throw ApiError(429, fmt::format("{} requests are running or waiting: more than {} are not taken", taken - requests, most));
}

void Service::submit(const HttpCall& from, std::vector<Request> requests, std::function<void()> expire,
                     const std::shared_ptr<HttpReply>& reply) {
  std::vector<uint64_t> ids;
  ids.reserve(requests.size());
  for (Request& request : requests) {
    request.client = std::hash<std::string>()(from.visit->key_name);
    ids.push_back(engine_.submit(std::move(request)));
  }
  const auto cancel = [this, ids] {
    for (const uint64_t id : ids) engine_.cancel(id);
  };
  reply->when_gone(cancel);
  if (!from.visit->deadline) return;
  reply->call_at(*from.visit->deadline, [cancel, expire = std::move(expire)] {
    expire();
    cancel();
  });
}

Service::Constraint Service::constraint_of(const Call& call, const ToolUse& use, bool after_reasoning) {
  Constraint constraint;
  std::optional<AskedForm> asked = form_of(call);
  if (use.must) {
    if (asked) throw ApiError(400, fmt::format("tool_choice: a call is required, but {} asks for an answer", asked->field), "tool_choice");
    asked = {{ReplyForm::Kind::structural_tag,
              call_form(use.format->style, tokenizer_, use.tools, use.only, use.only.empty() && call.parallel_tool_calls, false)},
             "tools"};
  }
  if (asked) {
    try {
      constraint.grammar = grammars_.compile(asked->form, after_reasoning);
    } catch (const Error& error) {
      throw ApiError(400, fmt::format("{}: {}", asked->field, error.what()), asked->field);
    }
    if (after_reasoning) constraint.free_until = {reasoning_end(tokenizer_)};
    return constraint;
  }
  // A reply that may call is free until it does.
  if (use.tools.empty()) return constraint;
  const std::optional<int32_t> begin = tokenizer_.find(call_begin(use.format->style)), end = tokenizer_.find("</think>");
  if (!begin) return constraint;
  try {
    constraint.grammar = grammars_.compile(
        {ReplyForm::Kind::structural_tag, call_form(use.format->style, tokenizer_, use.tools, "", call.parallel_tool_calls, true)});
  } catch (const Error&) {
    return constraint;  // nobody has asked for it to be exact
  }
  if (after_reasoning && end) constraint.free_until = {*end};
  constraint.free_until.push_back(*begin);
  return constraint;
}

void Service::start(const HttpCall& from, const Call& call, const Dialect& dialect, const std::shared_ptr<HttpReply>& reply) {
  const std::shared_ptr<const Adapter> adapter = check_model(call.model);
  const std::string& name = adapter ? adapter->name : options_.name;
  gate_.check_model(from, name);
  gate_.set_deadline(from, call.timeout);
  const int64_t count = (call.messages.empty() ? int64_t(call.prompts.size()) : 1) * call.choices;
  take_places(from, count);
  const std::vector<Prompt> prompts = prompts_of(call);
  const bool after_reasoning = prompts[0].starts_in_reasoning;  // only a chat does, and it is one prompt
  const ToolUse use = call.messages.empty() ? ToolUse{} : tool_use_of(call, chat_template());
  const Constraint constraint = constraint_of(call, use, after_reasoning);
  int64_t prompt_tokens = 0;
  for (const Prompt& prompt : prompts) prompt_tokens += int64_t(prompt.tokens.size());
  Visit& visit = *from.visit;
  visit.model = name;
  if (options_.gate.log_content) visit.asked = from.body;
  std::vector<std::string> stops = call.stops;
  stops.insert(stops.end(), options_.stops.begin(), options_.stops.end());
  const std::optional<CallStyle> calls = use.tools.empty() ? std::nullopt : std::optional(use.format->style);
  const auto job = std::make_shared<Job>(JobContext{tokenizer_, metrics_, options_.gate.log_content, calls}, call, dialect,
                                         dialect.format(call, {name, now(), tokenizer_}), prompts, stops, from.visit, reply);
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) {
    Request request;
    request.prompt = prompts[size_t(i / call.choices)].tokens;
    request.sampling = call.sampling;
    request.sampling.seed += call.seeded ? uint64_t(i % call.choices) : started_++;
    request.max_tokens = call.prompt_only ? 1 : call.max_tokens > 0 ? call.max_tokens : room();
    request.logprobs = call.logprobs;
    request.stop_tokens = end_tokens_;
    request.adapter = adapter;
    request.grammar = constraint.grammar;
    request.free_until = constraint.free_until;
    request.priority = int(gate_.priority(from, call.priority));
    job->attach(i, request);
    engine_.check(request);
    requests.push_back(std::move(request));
  }
  gate_.admit(from, count, prompt_tokens);
  job->open();
  submit(
      from, std::move(requests),
      [late = std::weak_ptr(job)] {
        if (const std::shared_ptr<Job> job = late.lock()) job->expire();
      },
      reply);
}

void Service::count(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const Call asked = parse_count_call(call.body);
  check_model(asked.model);
  answer(reply, 200, count_json(int64_t(prompts_of(asked)[0].tokens.size())));
}

void Service::embed(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const EmbeddingCall asked = parse_embedding_call(call.body);
  const std::shared_ptr<const Adapter> adapter = check_model(asked.model);
  const std::string& name = adapter ? adapter->name : options_.name;
  gate_.check_model(call, name);
  gate_.set_deadline(call, asked.timeout);
  if (asked.dimensions > config_.dim)
    throw ApiError(400, fmt::format("dimensions: expected at most {}, found {}", config_.dim, asked.dimensions), "dimensions");
  take_places(call, 1);  // however many inputs: clients send thousands at a time
  call.visit->model = name;
  const auto job = std::make_shared<EmbeddingJob>(JobContext{tokenizer_, metrics_}, asked, name, call.visit, reply);
  std::vector<Request> requests;
  int64_t tokens = 0;
  for (const TextOrTokens& input : asked.inputs) {
    Request request;
    request.prompt = prompt_of(input).tokens;
    request.adapter = adapter;
    tokens += int64_t(request.prompt.size());
    job->attach(requests.size(), request);
    engine_.check(request);
    requests.push_back(std::move(request));
  }
  gate_.admit(call, 1, tokens);
  submit(
      call, std::move(requests),
      [late = std::weak_ptr(job)] {
        if (const std::shared_ptr<EmbeddingJob> job = late.lock()) job->expire();
      },
      reply);
}

void Service::models(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const std::vector<ModelEntry> all = all_models();
  if (call.path == "/v1/models") return answer(reply, 200, models_json(all));
  const std::string name = decoded(call.path.substr(std::string_view("/v1/models/").size()));
  const auto one = std::ranges::find(all, name, &ModelEntry::id);
  if (one == all.end()) throw ApiError(404, fmt::format("there is no model '{}' here", name), "model", "model_not_found");
  answer(reply, 200, model_json(*one));
}

std::vector<ModelEntry> Service::own_models() const {
  std::vector<ModelEntry> own{{options_.name, created_, room(), ""}};
  for (const auto& [name, entry] : adapters_.all()) own.push_back({name, entry.created, room(), options_.name});
  return own;
}

std::vector<ModelEntry> Service::all_models() const {
  std::vector<ModelEntry> all = first_.own_models();
  for (const Service* other : first_.others_) {
    const std::vector<ModelEntry> more = other->own_models();
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

// This one, too, for whatever names none that there is: it says so.
Service& Service::service_for(const HttpCall& call) {
  if (others_.empty()) return *this;
  for (const std::string& name : call.method == "POST" ? names_in(call.body) : names_in_query(call.query)) {
    if (serves(name)) return *this;
    for (Service* other : others_)
      if (other->serves(name)) return *other;
  }
  return *this;
}

void Service::check_may_change_adapters(const HttpCall& call) const {
  gate_.check_admin(call);
  if (options_.adapter_folder.empty())
    throw ApiError(403, "adapters cannot be changed here: the server was started without --adapter-folder", "", "not_admin");
}

void Service::load_adapter(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  check_may_change_adapters(call);
  const AdapterCall asked = parse_adapter_call(call.body);
  const std::vector<ModelEntry> all = all_models();
  const auto taken = std::ranges::find(all, asked.name, &ModelEntry::id);
  if (taken != all.end() && taken->parent != options_.name)
    throw ApiError(400, fmt::format("lora_name: '{}' is a model itself, or an adapter of another", asked.name), "lora_name");
  if (asked.path.empty()) throw ApiError(400, "lora_path: expected a folder, found nothing", "lora_path");
  const std::string name = asked.name;
  adapters_.load(name, path_within(options_.adapter_folder, asked.path), [this, name, reply](const std::string& problem) {
    if (problem.empty())
      reply->send(200, "text/plain", fmt::format("Success: LoRA adapter '{}' added successfully.", name));
    else
      answer(reply, 400, openai_error(ApiError(400, problem, "lora_path")));
  });
}

void Service::unload_adapter(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  check_may_change_adapters(call);
  const AdapterCall asked = parse_adapter_call(call.body);
  if (!adapters_.remove(asked.name))
    throw ApiError(404, fmt::format("lora_name: there is no adapter '{}' here", asked.name), "lora_name", "model_not_found");
  reply->send(200, "text/plain", fmt::format("Success: LoRA adapter '{}' removed successfully.", asked.name));
}

void Service::model_cards(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  std::string cards = card_;
  for (const Service* other : others_) cards += "," + other->card_;
  answer(reply, 200, R"({"object":"list","data":[)" + cards + "]}");
}

void Service::tokenizer_info(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  const auto text_of = [&](std::optional<int32_t> token) { return token ? Json(tokenizer_.bytes(*token)) : Json(); };
  answer(reply, 200,
         to_text(Json{{"bos_token", text_of(tokenizer_.begin_token())},
                      {"eos_token", text_of(tokenizer_.end_token())},
                      {"vocab_size", tokenizer_.size()},
                      {"chat_template", chat_template_ ? Json(chat_template_->source()) : Json()}}));
}

void Service::tokenize(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const TokenizeCall asked = parse_tokenize_call(call.body);
  const std::vector<int32_t> tokens = asked.add_special_tokens ? raw_prompt(tokenizer_, asked.text).tokens : tokenizer_.encode(asked.text);
  answer(reply, 200, to_text(Json{{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", room()}}));
}

void Service::detokenize(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const std::vector<int32_t> tokens = parse_tokens(call.body);
  for (const int32_t token : tokens)
    if (token >= config_.vocab) throw ApiError(400, fmt::format("tokens: expected ids below {}, found {}", config_.vocab, token), "tokens");
  const std::string text = tokenizer_.decode(tokens);
  answer(reply, 200, to_text(Json{{"content", text}, {"prompt", text}}));  // as llama.cpp and as vLLM call it
}

void Service::apply_template(const HttpCall& call, const std::shared_ptr<HttpReply>& reply) {
  const Call asked = openai_chat.parse(call.body, options_.sampling);
  const Shown shown = shown_of(asked);
  const std::string text = chat_text(tokenizer_, chat_template(), shown.messages, asked.template_variables, shown.tools);
  answer(reply, 200, to_text(Json{{"prompt", text}}));
}

void Service::health(const HttpCall&, const std::shared_ptr<HttpReply>& reply) { answer(reply, 200, to_text(Json{{"status", "ok"}})); }

void Service::ready(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  if (draining_) throw ApiError(503, "the server is shutting down");
  answer(reply, 200, to_text(Json{{"status", "ready"}, {"requests", requests_.load()}}));
}

void Service::metrics(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  Metrics::Now now{requests_, gate_.dropped_lines()};
  const auto add = [&](const Service& one) {
    const EngineFigures figures = one.engine_.figures();
    now.engines.running += figures.running;
    now.engines.waiting += figures.waiting;
    now.engines.pages += figures.pages;
    now.engines.free_pages += figures.free_pages;
    now.engines.kept_pages += figures.kept_pages;
    now.engines.cached_tokens += figures.cached_tokens;
    now.engines.preempted += figures.preempted;
    now.engines.cancelled += figures.cancelled;
    if (one.load_) now.experts.emplace_back(one.options_.name, one.load_.get());
  };
  add(*this);
  for (const Service* other : others_) add(*other);
  reply->send(200, "text/plain; version=0.0.4", metrics_.text(now));
}

void Service::answer(const std::shared_ptr<HttpReply>& reply, int status, std::string json, HttpHeaders headers) {
  reply->send(status, json_type, std::move(json), std::move(headers));
}

void Service::version(const HttpCall&, const std::shared_ptr<HttpReply>& reply) {
  answer(reply, 200, to_text(Json{{"version", options_.version}}));
}

}  // namespace hadal
