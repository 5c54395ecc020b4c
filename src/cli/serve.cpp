// hadal serve: a model for every program that speaks OpenAI's interfaces or Anthropic's.
#include <sys/resource.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <memory>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/settings.h"
#include "core/error.h"
#include "core/memory.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "serve/service.h"

namespace hadal {
namespace {

struct Options : RunOptions {
  std::string model = "smollm2", host = "127.0.0.1", name;
  uint16_t port = 8080;
  std::vector<std::string> adapters;
  std::string adapter_folder;
  int64_t replies = 8, most_requests = 256, drain = 30;
  GateOptions gate;
  HttpLimits limits;
  int64_t body = 32 << 20, head = 16 << 10, idle_seconds = 75, body_seconds = 60, write_seconds = 30;
};

// Each open stream is an open file; services often start with room for 1,024.
void allow_many_files() {
  rlimit files = {};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

HttpLimits limits_of(const Options& options) {
  HttpLimits limits = options.limits;
  limits.body_bytes = size_t(options.body);
  limits.head_bytes = size_t(options.head);
  limits.idle = std::chrono::seconds(options.idle_seconds);
  limits.body = std::chrono::seconds(options.body_seconds);
  limits.write = std::chrono::seconds(options.write_seconds);
  limits.drain = std::chrono::seconds(options.drain);
  return limits;
}

bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

EngineOptions engine_options(const Options& options, const Model& model) {
  EngineOptions out;
  out.cache = options.feeding.cache_for(model);
  const int64_t affordable = int64_t(available_memory() / 2) / KvCache::bytes_per_row(model.config, out.cache);
  out.cache_rows = std::min(model.config.context * options.replies, std::max(affordable, KvCache::page_rows));
  out.sequences = options.replies;
  out.prompt_chunk = options.feeding.chunk;
  out.max_rows = options.feeding.chunk + options.most_requests;
  out.drafting = options.drafting;
  return out;
}

std::string name_of(const Options& options, const ModelSource& source) {
  if (!options.name.empty()) return options.name;
  const std::string last = source.path().filename();
  return last.empty() ? source.path().parent_path().filename().string() : last;
}

std::pair<std::string, std::filesystem::path> split_at_equals(const std::string& option, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == text.npos || equals + 1 == text.size()) throw Error("{} {}: expected NAME=FOLDER", option, text);
  return {text.substr(0, equals), text.substr(equals + 1)};
}

void run(const Options& options, const std::string& version) {
  const ModelSource source = open_model(options.model);
  ServiceOptions service_options;
  service_options.name = name_of(options, source);
  service_options.version = version;
  service_options.gate = options.gate;
  service_options.gate.local = is_loopback(options.host);
  if (const char* key = std::getenv("HADAL_API_KEY")) service_options.gate.key = key;
  service_options.sampling = sampling_for(options.sampling, source.path());
  service_options.stops = options.sampling.stop;
  service_options.most_requests = options.most_requests;
  for (const std::string& adapter : options.adapters) service_options.adapters.push_back(split_at_equals("--adapter", adapter));
  service_options.adapter_folder = options.adapter_folder;
  const ModelConfig config = options.feeding.masked(source.config());
  service_options.sampling.check(config.vocab);
  std::signal(SIGPIPE, SIG_IGN);  // a log's reader that goes away ends no server
  allow_many_files();
  HttpServer server(options.host, options.port, limits_of(options));  // an address that is taken is told before the model is loaded
  Model model = load_model(source, config, options.weights, options.drafting);
  const EngineOptions engine = engine_options(options, model);
  keep_within(model, options.weights, engine.cache, engine.cache_rows, engine.max_rows);
  std::string problem;
  Service service(service_options, source.tokenizer(), source.chat_template(), model, engine, [&](const std::string& what) {
    problem = what;
    server.stop();
  });
  put(fmt::format("{} at http://{}:{}/v1, {} tokens a reply, room for {} in all{}\n", service_options.name, options.host, server.port(),
                  with_commas(service.room()), with_commas(engine.cache_rows),
                  service_options.gate.key.empty() && service_options.gate.keys.empty() ? "" : ", with API keys"));
  flush_output();
  server.run([&](const HttpCall& call, const std::shared_ptr<HttpReply>& reply) { service.handle(call, reply); },
             [&] {
               service.drain();
               note("Shutting down: running replies are finished, another Ctrl-C ends them.");
             },
             [&] { note(service.reload()); });
  if (!problem.empty()) throw Error("the engine failed: {}", problem);
}

void add_access(CLI::App* command, Options& options) {
  GateOptions& gate = options.gate;
  const char* group = "Access and log";
  command->add_option("--keys", gate.keys, "file of API keys: see `hadal keys`")->type_name("FILE")->group(group);
  command->add_option("--allow-origin", gate.origins, "of web pages that may ask, like https://example.org; *: all")
      ->type_name("ORIGIN")
      ->group(group);
  command
      ->add_option(
          "--allow-host", gate.hosts,
          "a name that this server may be called by, beside localhost; asked for where only this machine listens and there are no keys")
      ->type_name("NAME")
      ->group(group);
  command->add_option("--log", gate.log, "a line of JSON for each call, without prompts and replies; -: standard output")
      ->type_name("FILE")
      ->group(group);
  command->add_flag("--log-content", gate.log_content, "with prompts and replies")->group(group);
}

void add_limits(CLI::App* command, Options& options) {
  const auto add = [&](const char* name, auto& to, int64_t least, int64_t most, const char* unit, const char* what) {
    command->add_option(name, to, what)->check(CLI::Range(least, most))->type_name(unit)->group("Limits")->capture_default_str();
  };
  command->add_option("--reply-seconds", options.gate.reply_seconds, "for a whole reply, waiting included; 0: no limit")
      ->check(CLI::Range(0.0, 1e6))
      ->type_name("SECONDS")
      ->group("Limits")
      ->capture_default_str();
  add("--body-bytes", options.body, 1, int64_t(1) << 32, "N", "of a request");
  add("--head-bytes", options.head, 256, 1 << 20, "N", "of a request");
  add("--idle-seconds", options.idle_seconds, 1, 86400, "SECONDS", "for a connection without a request");
  add("--body-seconds", options.body_seconds, 1, 86400, "SECONDS", "for a request to arrive");
  add("--write-seconds", options.write_seconds, 1, 86400, "SECONDS", "for a client to take what it is sent");
  add("--connections", options.limits.connections, 1, 1'000'000, "N", "at a time; more wait");
}

}  // namespace

void add_serve(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "serve", "serve the OpenAI and Anthropic interfaces over HTTP", R"(  hadal serve
  hadal serve path/to/model --weights w4 --port 9000
  HADAL_API_KEY=secret hadal serve path/to/model --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/chat/completions -d '{"messages": [{"role": "user", "content": "Name three rivers."}]}'

OpenAI:    POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings; GET /v1/models
Anthropic: POST /v1/messages, /v1/messages/count_tokens
Tokens:    POST /tokenize, /detokenize, /apply-template; GET /tokenizer_info
Operation: GET /health, /ready, /version, /metrics (Prometheus), /openapi.json (what all of them take)
In a browser, / is a page: chat, dashboard, the model.
With --adapter-folder: POST /v1/load_lora_adapter, /v1/unload_lora_adapter.
Replies of all clients are computed together. SIGTERM or Ctrl-C finishes what is running first. SIGHUP reads the keys and opens the
log again. With --keys or HADAL_API_KEY whoever asks needs a key, but for /health, /ready, /version and /metrics.
A setting comes from its flag, else from HADAL_SERVE_... in the environment, else from the file, else it is the default.)");
  add_model(command, options->model)->required(false)->capture_default_str();
  command->add_option("--host", options->host, "address to listen at; 0.0.0.0: every one of this machine")
      ->type_name("ADDRESS")
      ->capture_default_str();
  command->add_option("--port", options->port, "0: a free one, which is printed")->type_name("N")->capture_default_str();
  command->add_option("--name", options->name, "what clients call the model; default: the name of its file or folder")->type_name("NAME");
  command->add_option("--replies", options->replies, "of the model's whole context that have room at a time; short ones share it")
      ->check(CLI::Range(int64_t(1), int64_t(4096)))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--most-requests", options->most_requests, "running and waiting; more are told to come back later (429)")
      ->check(CLI::Range(int64_t(1), int64_t(4096)))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--drain", options->drain, "time for running replies after SIGTERM")
      ->check(CLI::Range(int64_t(0), int64_t(86400)))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_option("--adapter", options->adapters, "a LoRA adapter of the model, and what clients call it; may be given again")
      ->type_name("NAME=FOLDER");
  command
      ->add_option("--adapter-folder", options->adapter_folder,
                   "clients may load, swap and remove adapters, from within this folder; with "
                   "keys, those that `hadal keys add --admin` made")
      ->type_name("FOLDER");
  add_access(command, *options);
  add_limits(command, *options);
  add_run(command, *options);
  add_settings(command);
  command->callback([options, command] {
    apply_settings(command);
    if (wants_print(command)) return put(settings_text(command));
    run(*options, HADAL_VERSION);
  });
}

}  // namespace hadal
