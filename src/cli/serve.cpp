// hadal serve: a model for every program that speaks OpenAI's interfaces or Anthropic's.
#include <sys/resource.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/settings.h"
#include "core/error.h"
#include "core/memory.h"
#include "infer/expert_load.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "plan/machine.h"
#include "serve/service.h"

namespace hadal {
namespace {

struct Options : RunOptions {
  std::string model = "smollm2", host = "127.0.0.1", name;
  uint16_t port = 8080;
  std::vector<std::string> also, adapters;
  std::string adapter_folder;
  int64_t replies = 8, most_requests = 256, drain = 30;
  std::string prefix_folder;
  int64_t prefix_bytes = 10'000'000'000;
  GateOptions gate;
  HttpLimits limits;
  int64_t body = 32 << 20, head = 16 << 10, idle_seconds = 75, body_seconds = 60, write_seconds = 30;
  Options() { feeding.chunk = 256; }  // what prompts share is counted in chunks
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

// Of whatever the bytes in the cache depend on beside the tokens: other weights, formats or instructions make other ones.
std::string identity_of(const Options& options, const Model& model, const EngineOptions& engine) {
  std::string all = fmt::format("{} {} {} {} {} {} {}", HADAL_VERSION, options.weights.text(), int(engine.cache), engine.prompt_chunk,
                                options.feeding.sinks, options.feeding.top_blocks, probe_machine(false).isa);
  for (const auto& file : model.files) {
    const auto written = std::filesystem::last_write_time(file->path()).time_since_epoch().count();
    all += fmt::format(" {} {} {}", std::filesystem::canonical(file->path()).string(), file->bytes().size(), written);
  }
  return all;
}

// models: that share the memory.
EngineOptions engine_options(const Options& options, const Model& model, int64_t models) {
  EngineOptions out;
  out.cache = options.feeding.cache_for(model);
  const int64_t affordable = int64_t(available_memory() / 2) / models / KvCache::bytes_per_row(model.config, out.cache);
  out.cache_rows = std::min(model.config.context * options.replies, std::max(affordable, KvCache::page_rows));
  out.sequences = options.replies;
  out.prompt_chunk = options.feeding.chunk;
  out.max_rows = options.feeding.chunk + options.most_requests;
  out.drafting = options.drafting;
  if (!options.prefix_folder.empty()) out.disk = {options.prefix_folder, identity_of(options, model, out), options.prefix_bytes};
  return out;
}

std::string name_of(const Options& options, const ModelSource& source) {
  if (!options.name.empty()) return options.name;
  const std::string last = source.path().filename();
  return last.empty() ? source.path().parent_path().filename().string() : last;
}

struct Named {
  std::string name, what;
};
Named split_at_equals(const std::string& option, const std::string& text, const char* expected) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == text.npos || equals + 1 == text.size()) throw Error("{} {}: expected {}", option, text, expected);
  return {text.substr(0, equals), text.substr(equals + 1)};
}

struct Served {  // a model of this server
  ModelSource source;
  ModelConfig config;
  ServiceOptions options;
  Model model = {};
  EngineOptions engine = {};
  std::unique_ptr<Service> service = nullptr;
};

Served make_served(const Options& options, const std::string& reference, const std::string& name, const std::string& version) {
  Served served{open_model(reference), {}, {}};
  served.options.name = name.empty() ? name_of(options, served.source) : name;
  served.options.version = version;
  served.options.gate = options.gate;
  served.options.gate.local = is_loopback(options.host);
  if (const char* key = std::getenv("HADAL_API_KEY")) served.options.gate.key = key;
  served.options.sampling = sampling_for(options.sampling, served.source.path());
  served.options.stops = options.sampling.stop;
  served.options.most_requests = options.most_requests;
  served.options.adapter_folder = options.adapter_folder;
  served.config = options.feeding.masked(served.source.config());
  served.options.sampling.check(served.config.vocab);
  return served;
}

std::vector<Served> all_served(const Options& options, const std::string& version) {
  std::vector<Served> all;
  all.push_back(make_served(options, options.model, "", version));
  for (const std::string& text : options.also) {
    const Named also = split_at_equals("--also", text, "NAME=MODEL");
    all.push_back(make_served(options, also.what, also.name, version));
  }
  for (const std::string& text : options.adapters) {
    const Named adapter = split_at_equals("--adapter", text, "NAME=FOLDER or NAME@MODEL=FOLDER");
    const size_t at = adapter.name.find('@');
    const auto of = at == adapter.name.npos
                        ? all.begin()
                        : std::ranges::find(all, adapter.name.substr(at + 1), [](const Served& served) { return served.options.name; });
    if (of == all.end()) throw Error("--adapter {}: there is no model {}", text, adapter.name.substr(at + 1));
    of->options.adapters.emplace_back(adapter.name.substr(0, at), adapter.what);
  }
  return all;
}

void run(const Options& options, const std::string& version) {
  std::signal(SIGPIPE, SIG_IGN);  // a log's reader that goes away ends no server
  allow_many_files();
  // First, so that an address that is taken is told before the model is loaded, and that replies which are dropped at the end have it.
  HttpServer server(options.host, options.port, limits_of(options));
  std::vector<Served> all = all_served(options, version);
  std::string problem;
  WeightOptions weights = options.weights;
  weights.memory /= int64_t(all.size());
  for (Served& served : all) {
    served.model = load_model(served.source, served.config, weights, options.drafting);
    const MoeConfig& moe = served.config.moe;
    if (moe.experts > 0) served.model.load = std::make_shared<ExpertLoad>(served.config.layers, moe.experts);
  }
  for (Served& served : all) {
    served.engine = engine_options(options, served.model, int64_t(all.size()));
    keep_within(served.model, weights, served.engine.cache, served.engine.cache_rows, served.engine.max_rows);
    served.service = std::make_unique<Service>(
        served.options, served.source.tokenizer(), served.source.chat_template(), served.model, served.engine,
        [&](const std::string& what) {
          problem = what;
          server.stop();
        },
        all[0].service.get());
  }
  Service& service = *all[0].service;
  const bool with_keys = !all[0].options.gate.key.empty() || !all[0].options.gate.keys.empty();
  put(fmt::format("{} at http://{}:{}/v1, {} tokens a reply, room for {} in all{}\n", all[0].options.name, options.host, server.port(),
                  with_commas(service.room()), with_commas(all[0].engine.cache_rows), with_keys ? ", with API keys" : ""));
  for (const Served& other : std::span(all).subspan(1))
    put(fmt::format("{} beside it, {} tokens a reply, room for {} in all\n", other.options.name, with_commas(other.service->room()),
                    with_commas(other.engine.cache_rows)));
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
  command->add_option("--also", options->also, "another model beside it, and what clients call it; may be given again")
      ->type_name("NAME=MODEL");
  command
      ->add_option("--adapter", options->adapters,
                   "a LoRA adapter of the model, or of another (NAME@MODEL=FOLDER), and what clients call it; may be given again")
      ->type_name("NAME=FOLDER");
  command
      ->add_option("--adapter-folder", options->adapter_folder,
                   "clients may load, swap and remove adapters, from within this folder; with "
                   "keys, those that `hadal keys add --admin` made")
      ->type_name("FOLDER");
  command
      ->add_option(
          "--prefix-folder", options->prefix_folder,
          "keep what was read of prompts there when memory is short and at the end: whoever begins alike after a restart waits less")
      ->type_name("DIR");
  add_size(command, "--prefix-bytes", options->prefix_bytes, "at most so much in that folder; what was used longest ago goes first")
      ->default_str("10GB");
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
