#include "serve/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

#include "serve/anthropic.h"

namespace hadal {
namespace {

constexpr const char* json_type = "application/json";

// A client's own id is good for logs when it is short and plain; else it gets one from here.
bool is_sane_id(const std::string& id) {
  const auto plain = [](char c) { return std::isalnum(uint8_t(c)) || std::string_view("._:+/=@-").find(c) != std::string_view::npos; };
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), plain);
}

std::string new_id() {
  static std::mt19937_64 draw{(uint64_t(std::random_device()()) << 32) | std::random_device()()};  // the server's thread alone
  return fmt::format("req_{:016x}{:016x}", draw(), draw());
}

std::string without_port(std::string host) {
  std::transform(host.begin(), host.end(), host.begin(), [](char c) { return char(std::tolower(uint8_t(c))); });
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

// "1s", "6m0s", as OpenAI writes what is left to wait.
std::string as_wait(double seconds) {
  if (seconds < 60) return fmt::format("{}s", std::ceil(seconds * 1000) / 1000);
  const int64_t whole = int64_t(std::ceil(seconds));
  return fmt::format("{}m{}s", whole / 60, whole % 60);
}

// A list of header names that may be repeated to the browser that asked for them.
bool is_header_list(const std::string& text) {
  const auto fits = [](char c) { return std::isalnum(uint8_t(c)) || std::string_view("-_, ").find(c) != std::string_view::npos; };
  return text.size() <= 1024 && std::all_of(text.begin(), text.end(), fits);
}

std::string bearer(const HttpCall& call) {
  constexpr std::string_view scheme = "bearer ";
  const std::string value(call.header("authorization"));
  if (value.size() > scheme.size() &&
      std::equal(scheme.begin(), scheme.end(), value.begin(), [](char a, char b) { return a == std::tolower(uint8_t(b)); }))
    return value.substr(scheme.size());
  return std::string(call.header("x-api-key"));  // as Anthropic's clients have it
}

}  // namespace

// Passes an answer on, with the headers of its call. The visit ends with it, before the client can see it.
class Gate::Reply : public HttpReply {
 public:
  Reply(Gate& gate, const HttpCall& call, std::shared_ptr<HttpReply> to)
      : gate_(gate), visit_(call.visit), to_(std::move(to)), headers_(gate.headers_for(call)) {}
  ~Reply() override { end(499); }  // nobody waited for it

  void send(int status, std::string type, std::string body, HttpHeaders headers) override {
    end(status);
    to_->send(status, std::move(type), std::move(body), joined(std::move(headers)));
  }
  void open(std::string type, HttpHeaders headers) override { to_->open(std::move(type), joined(std::move(headers))); }
  bool write(std::string piece) override { return to_->write(std::move(piece)); }
  void close(std::string last) override {
    end(200);
    to_->close(std::move(last));
  }
  bool gone() const override { return to_->gone(); }
  void when_gone(std::function<void()> call) override { to_->when_gone(std::move(call)); }
  void call_at(std::chrono::steady_clock::time_point time, std::function<void()> call) override { to_->call_at(time, std::move(call)); }

 private:
  void end(int status) {
    if (std::exchange(ended_, true)) return;
    visit_->leave();
    gate_.metrics_.answered(status);
    if (gate_.log_) gate_.log_->tell(*visit_, status);
  }
  HttpHeaders joined(HttpHeaders headers) const {
    headers.insert(headers.end(), headers_.begin(), headers_.end());
    if (!visit_->key) return headers;
    const Quota quota = visit_->key->quota(Visit::Clock::now());
    const auto add = [&](const char* name, const std::string& value) { headers.emplace_back(fmt::format("x-ratelimit-{}", name), value); };
    if (quota.requests > 0) {
      add("limit-requests", std::to_string(quota.requests));
      add("remaining-requests", std::to_string(quota.requests_left));
    }
    if (quota.tokens > 0) {
      add("limit-tokens", std::to_string(quota.tokens));
      add("remaining-tokens", std::to_string(quota.tokens_left));
      add("reset-tokens", as_wait(quota.tokens_reset));
    }
    return headers;
  }

  Gate& gate_;
  const std::shared_ptr<Visit> visit_;
  const std::shared_ptr<HttpReply> to_;
  const HttpHeaders headers_;
  bool ended_ = false;
};

Gate::Gate(GateOptions options, Metrics& metrics) : options_(std::move(options)), keys_(options_.keys, options_.key), metrics_(metrics) {
  if (!options_.log.empty()) log_ = std::make_unique<RequestLog>(options_.log, options_.log_content);
}

std::shared_ptr<HttpReply> Gate::open(HttpCall& call, std::shared_ptr<HttpReply> to) {
  call.visit = std::make_shared<Visit>();
  Visit& visit = *call.visit;
  const std::string id(call.header("x-request-id"));
  visit.id = is_sane_id(id) ? id : new_id();
  visit.method = call.method;
  visit.path = call.path.substr(0, 200);
  auto reply = std::make_shared<Reply>(*this, call, std::move(to));
  const auto refuse = [&](const ApiError& error) {
    reply->send(error.status, json_type, error_json(call.path, error), {});
    return nullptr;
  };
  if (refuses_host(call))
    return refuse({403, fmt::format("'{}' is no name of this server: see --allow-host", call.header("host")), "", "host_refused"});
  const std::string origin(call.header("origin"));
  if (call.method == "OPTIONS" && !origin.empty() && !call.header("access-control-request-method").empty()) {
    HttpHeaders headers;
    if (knows_origin(origin)) {
      headers = {{"Access-Control-Allow-Methods", "GET, POST, DELETE"}, {"Access-Control-Max-Age", "600"}};
      const std::string wished(call.header("access-control-request-headers"));
      if (!wished.empty() && is_header_list(wished)) headers.emplace_back("Access-Control-Allow-Headers", wished);
    }
    reply->send(204, "", "", std::move(headers));
    return nullptr;
  }
  if (refuses_origin(call))
    return refuse({403, fmt::format("pages of {} may not ask here: see --allow-origin", origin), "", "origin_refused"});
  return reply;
}

// A web page whose name was made to lead to this machine (DNS rebinding) still calls it by that name.
bool Gate::refuses_host(const HttpCall& call) const {
  if (!options_.local || keys_.asks() || call.header("host").empty()) return false;
  const std::string host = without_port(std::string(call.header("host")));
  if (host == "localhost" || host == "[::1]" || host.ends_with(".localhost")) return false;
  if (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos) return false;
  return std::find(options_.hosts.begin(), options_.hosts.end(), host) == options_.hosts.end();
}

bool Gate::knows_origin(const std::string& origin) const {
  const auto fits = [&](const std::string& known) { return known == "*" || known == origin; };
  return std::any_of(options_.origins.begin(), options_.origins.end(), fits);
}

// A page elsewhere could make its visitor's browser ask without reading the answer; keys, which it has not, are another lock.
bool Gate::refuses_origin(const HttpCall& call) const {
  const std::string origin(call.header("origin"));
  if (origin.empty() || call.method == "GET" || keys_.asks() || knows_origin(origin)) return false;
  const size_t host = origin.find("://");
  return host == std::string::npos || std::string_view(origin).substr(host + 3) != call.header("host");
}

HttpHeaders Gate::headers_for(const HttpCall& call) const {
  HttpHeaders headers{{"x-request-id", call.visit->id}};
  const std::string origin(call.header("origin"));
  if (options_.origins.empty()) return headers;
  headers.emplace_back("Vary", "Origin");
  if (origin.empty() || !knows_origin(origin)) return headers;
  headers.emplace_back("Access-Control-Allow-Origin", origin);
  headers.emplace_back("Access-Control-Expose-Headers",
                       "x-request-id, retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-limit-tokens, "
                       "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens");
  return headers;
}

void Gate::check_key(const HttpCall& call) {
  if (!keys_.asks()) return;
  const std::shared_ptr<KeyUse> key = keys_.find(bearer(call));
  if (!key)
    throw ApiError(401, "the API key is missing, wrong or has ended: expected the header Authorization: Bearer KEY", "", "invalid_api_key");
  call.visit->key = key;
  call.visit->key_name = key->rules().name;
}

void Gate::check_model(const HttpCall& call, const std::string& model) const {
  if (!call.visit->key) return;
  const KeyRules rules = call.visit->key->rules();
  if (rules.models.empty() || std::find(rules.models.begin(), rules.models.end(), model) != rules.models.end()) return;
  throw ApiError(403, fmt::format("model: the key '{}' may not use '{}'", rules.name, model), "model", "model_not_allowed");
}

void Gate::check_admin(const HttpCall& call) const {
  if (!call.visit->key || call.visit->key->rules().admin) return;
  throw ApiError(403, fmt::format("the key '{}' may not change the server: see `hadal keys add --admin`", call.visit->key_name), "",
                 "not_admin");
}

void Gate::admit(const HttpCall& call, int64_t requests, int64_t prompt_tokens) const {
  Visit& visit = *call.visit;
  visit.prompt_tokens = prompt_tokens;
  if (!visit.key) return;
  double wait = 0;
  const KeyUse::Admission how = visit.key->begin(requests, Visit::Clock::now(), wait);
  const KeyRules rules = visit.key->rules();
  if (how == KeyUse::Admission::too_many)
    throw ApiError(429, fmt::format("the key '{}' may have {} requests at a time", rules.name, rules.requests), "", "rate_limit_exceeded");
  if (how == KeyUse::Admission::too_fast) {
    ApiError error(
        429,
        fmt::format("the key '{}' has used its {} tokens a minute: try again in {}", rules.name, rules.tokens_per_minute, as_wait(wait)),
        "", "rate_limit_exceeded");
    error.retry_after = int64_t(std::ceil(wait));
    throw error;
  }
  visit.admitted = requests;
  visit.key->charge(prompt_tokens, Visit::Clock::now());
}

void Gate::set_deadline(const HttpCall& call, double seconds) const {
  std::optional<Visit::Clock::time_point>& deadline = call.visit->deadline;
  const auto until = [&](double s) {
    const auto time = call.visit->arrival + std::chrono::duration_cast<Visit::Clock::duration>(std::chrono::duration<double>(s));
    deadline = deadline ? std::min(*deadline, time) : time;
  };
  if (options_.reply_seconds > 0) until(options_.reply_seconds);
  if (seconds > 0) until(seconds);
  const std::string_view text = call.header("x-request-timeout");
  if (text.empty()) return;
  double wished = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), wished);
  if (problem != std::errc() || end != text.data() + text.size() || !(wished > 0 && wished <= 1e6))
    throw ApiError(400, "X-Request-Timeout: expected seconds, a number above 0 and up to 1000000", "x-request-timeout");
  until(wished);
}

int64_t Gate::priority(const HttpCall& call, int64_t wished) const {
  return call.visit->key ? std::min(wished, call.visit->key->rules().priority) : wished;
}

std::string Gate::reload() {
  if (log_) log_->reopen();
  if (options_.keys.empty()) return "SIGHUP: the log is opened again.";
  try {
    return fmt::format("SIGHUP: {} keys are in force, the log is opened again.", keys_.reload());
  } catch (const std::exception& e) {
    return fmt::format("SIGHUP: the keys stay as they were: {}", e.what());
  }
}

}  // namespace hadal
