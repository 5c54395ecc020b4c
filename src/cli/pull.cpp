// hadal pull: a repository of a hub into the cache.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/error.h"
#include "model/hub.h"

namespace hadal {
namespace {

struct Options {
  std::string name, revision = "main", endpoint;
  bool json = false;
};

void run(const Options& options) {
  std::signal(SIGPIPE, SIG_IGN);  // a hub that hangs up is an error to tell, not the end
  PullOptions how;
  how.endpoint = options.endpoint;
  how.revision = options.revision;
  std::filesystem::path path;
  {
    Progress progress("pull", "", Progress::Unit::bytes);
    int64_t already = -1;  // on disk from an earlier attempt: no part of the rate
    how.on_progress = [&](const PullProgress& now) {
      if (already < 0) already = now.done;
      progress.update(now.done, now.size, now.file, already);
    };
    path = pull(options.name, how);
  }
  if (options.json) return put(nlohmann::ordered_json{{"name", options.name}, {"path", path.string()}}.dump() + "\n");
  put(path.string() + "\n");
}

}  // namespace

void add_pull(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "pull", "download a model from a Hugging Face compatible hub", R"(  hadal pull r1-distill-qwen-1.5b
  hadal pull deepseek-ai/DeepSeek-V2-Lite-Chat --revision main
  HF_TOKEN=... hadal pull owner/private-model --endpoint https://hub.example

Fetches only what running the model takes, resumes what was cut off, checks sizes and sha256, and prints where the model is.
Files go to the cache folder (HADAL_CACHE). The token comes from HF_TOKEN, the default endpoint from HF_ENDPOINT.)");
  command->add_option("NAME", options->name, "a name of `hadal models`, owner/name, or owner/name/file.gguf")->required();
  command->add_option("--revision", options->revision, "branch, tag or commit")->type_name("R")->capture_default_str();
  command->add_option("--endpoint", options->endpoint, "address of the hub")->type_name("URL");
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
