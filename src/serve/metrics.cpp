#include "serve/metrics.h"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "infer/expert_load.h"

namespace hadal {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
const Buckets between{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5};
const Buckets whole{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250};
const Buckets rows{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
const Buckets tokens{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536};

std::string label(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

// Many series, counted elsewhere: written without a registry.
std::string expert_text(const std::string& model, const ExpertLoad& load) {
  std::string text;
  for (int64_t layer = 0; layer < load.layers(); ++layer)
    for (int64_t expert = 0; expert < load.experts(); ++expert)
      text += fmt::format("hadal_expert_tokens_total{{model=\"{}\",layer=\"{}\",expert=\"{}\"}} {}\n", model, layer, expert,
                          load.rows(layer, expert));
  return text;
}

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& answers = prometheus::BuildCounter()
                                                         .Name("hadal_http_answers_total")
                                                         .Help("HTTP answers by status; 499: the client had gone")
                                                         .Register(registry);
  prometheus::Gauge& requests = gauge("hadal_requests", "Requests running and waiting");
  prometheus::Family<prometheus::Counter>& replies = prometheus::BuildCounter()
                                                         .Name("hadal_replies_total")
                                                         .Help("Replies by how they ended: stop, length, timeout, cancelled")
                                                         .Register(registry);
  prometheus::Counter& dropped =
      counter("hadal_log_lines_dropped_total", "Lines that the request log has lost: the disk was full or too slow");
  prometheus::Gauge& running = gauge("hadal_requests_running", "Requests that are computed");
  prometheus::Gauge& waiting = gauge("hadal_requests_waiting", "Requests that wait for memory or their turn");
  prometheus::Gauge& pages = gauge("hadal_cache_pages", "Pages of the cache");
  prometheus::Gauge& free_pages = gauge("hadal_cache_pages_free", "Pages that hold nothing");
  prometheus::Gauge& kept_pages = gauge("hadal_cache_pages_kept", "Pages of prompts that others may begin with");
  prometheus::Counter& cached = counter("hadal_cached_tokens_total", "Tokens of prompts that were known from before");
  prometheus::Counter& preempted = counter("hadal_preempted_total", "Times that a running request had to make room");
  prometheus::Counter& cancelled = counter("hadal_cancelled_total", "Requests that were cancelled");
  prometheus::Histogram& queue = histogram("hadal_queue_seconds", "From a request's arrival until its first rows were computed", whole);
  prometheus::Histogram& batch = histogram("hadal_batch_rows", "Rows of a forward pass", rows);
  prometheus::Histogram& prompt_sizes = histogram("hadal_request_prompt_tokens", "Tokens of a prompt that has been read", tokens);
  prometheus::Histogram& reply_sizes = histogram("hadal_request_reply_tokens", "Tokens of a reply that has ended", tokens);
  prometheus::Counter& prompt_tokens = counter("hadal_prompt_tokens_total", "Tokens of prompts that have been read");
  prometheus::Counter& reply_tokens = counter("hadal_reply_tokens_total", "Tokens of replies that have ended");
  prometheus::Histogram& first = histogram("hadal_first_token_seconds", "From a request's arrival to its first token", whole);
  prometheus::Histogram& next = histogram("hadal_between_tokens_seconds", "From a token to the next of its reply", between);
  prometheus::Histogram& all = histogram("hadal_request_seconds", "From a request's arrival to the end of its reply", whole);

 private:
  prometheus::Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

void Metrics::answered(int status) { state_->answers.Add({{"status", std::to_string(status)}}).Increment(); }

void Metrics::prompt_read(int64_t tokens, double seconds) {
  state_->prompt_tokens.Increment(double(tokens));
  state_->prompt_sizes.Observe(double(tokens));
  state_->first.Observe(seconds);
}

void Metrics::begun(double seconds) { state_->queue.Observe(seconds); }
void Metrics::passed(int64_t rows) { state_->batch.Observe(double(rows)); }
void Metrics::token_followed(double seconds) { state_->next.Observe(seconds); }

void Metrics::reply_ended(int64_t tokens, double seconds, const std::string& how) {
  state_->replies.Add({{"finish", how}}).Increment();
  state_->reply_sizes.Observe(double(tokens));
  state_->reply_tokens.Increment(double(tokens));
  state_->all.Observe(seconds);
}

std::string Metrics::text(const Now& now) const {
  state_->requests.Set(double(now.requests));
  const auto raise = [](prometheus::Counter& counter, int64_t to) { counter.Increment(double(to) - counter.Value()); };
  raise(state_->dropped, now.dropped_lines);
  const EngineFigures& e = now.engines;
  state_->running.Set(double(e.running));
  state_->waiting.Set(double(e.waiting));
  state_->pages.Set(double(e.pages));
  state_->free_pages.Set(double(e.free_pages));
  state_->kept_pages.Set(double(e.kept_pages));
  raise(state_->cached, e.cached_tokens);
  raise(state_->preempted, e.preempted);
  raise(state_->cancelled, e.cancelled);
  std::string text = prometheus::TextSerializer().Serialize(state_->registry.Collect());
  if (!now.experts.empty())
    text += "# HELP hadal_expert_tokens_total Tokens that an expert has computed\n# TYPE hadal_expert_tokens_total counter\n";
  for (const auto& [model, load] : now.experts) text += expert_text(label(model), *load);
  return text;
}

}  // namespace hadal
