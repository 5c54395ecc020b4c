// hadal serve: a model for every program that speaks the OpenAI interface.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
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
  int64_t replies = 8, most_requests = 256, drain = 30;
};

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

void run(const Options& options, const std::string& version) {
  const ModelSource source = open_model(options.model);
  ServiceOptions service_options;
  service_options.name = name_of(options, source);
  service_options.version = version;
  if (const char* key = std::getenv("HADAL_API_KEY")) service_options.api_key = key;
  service_options.sampling = sampling_for(options.sampling, source.path());
  service_options.stops = options.sampling.stop;
  service_options.most_requests = options.most_requests;
  const ModelConfig config = options.feeding.masked(source.config());
  service_options.sampling.check(config.vocab);
  HttpLimits limits;
  limits.drain = std::chrono::seconds(options.drain);
  HttpServer server(options.host, options.port, limits);  // an address that is taken is told before the model is loaded
  Model model = load_model(source, config, options.weights, options.drafting);
  const EngineOptions engine = engine_options(options, model);
  keep_within(model, options.weights, engine.cache, engine.cache_rows, engine.max_rows);
  std::string problem;
  Service service(service_options, source.tokenizer(), source.chat_template(), model, engine, [&](const std::string& what) {
    problem = what;
    server.stop();
  });
  put(fmt::format("{} at http://{}:{}/v1, {} tokens a reply, room for {} in all{}\n", service_options.name, options.host, server.port(),
                  with_commas(service.room()), with_commas(engine.cache_rows), service_options.api_key.empty() ? "" : ", with an API key"));
  flush_output();
  server.run([&](const HttpCall& call, const std::shared_ptr<HttpReply>& reply) { service.handle(call, reply); },
             [&] {
               service.drain();
               note("Shutting down: running replies are finished, another Ctrl-C ends them.");
             });
  if (!problem.empty()) throw Error("the engine failed: {}", problem);
}

}  // namespace

void add_serve(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "serve", "serve the OpenAI interface over HTTP", R"(  hadal serve
  hadal serve path/to/model --weights w4 --port 9000
  HADAL_API_KEY=secret hadal serve path/to/model --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/chat/completions -d '{"messages": [{"role": "user", "content": "Name three rivers."}]}'

POST /v1/chat/completions, /v1/completions, /tokenize, /detokenize, /apply-template; GET /v1/models, /health, /ready,
/version, /metrics (Prometheus).
Replies of all clients are computed together. SIGTERM or Ctrl-C finishes what is running first. With HADAL_API_KEY set, /v1/* asks for it.)");
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
  add_run(command, *options);
  command->callback([options] { run(*options, HADAL_VERSION); });
}

}  // namespace hadal
