// hadal keys: who may ask a server.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "serve/keys.h"

namespace hadal {
namespace {

struct Options {
  std::string file, expires;
  KeyRules rules;
  bool json = false;
};

std::string limit(int64_t of) { return of > 0 ? with_commas(of) : "-"; }

void list(const Options& options) {
  const std::vector<Key> keys = read_keys(options.file);
  if (options.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const Key& key : keys) {
      const KeyRules& r = key.rules;
      out.push_back({{"name", r.name},
                     {"id", key.id},
                     {"requests", r.requests},
                     {"tokens_per_minute", r.tokens_per_minute},
                     {"priority", r.priority},
                     {"models", r.models},
                     {"admin", r.admin},
                     {"expires", r.expires > 0 ? nlohmann::ordered_json(write_time(r.expires)) : nlohmann::ordered_json(nullptr)}});
    }
    return put(out.dump(2) + "\n");
  }
  std::vector<std::vector<std::string>> rows{{"name", "begins with", "requests", "tokens/min", "priority", "models", "admin", "expires"}};
  for (const Key& key : keys) {
    const KeyRules& r = key.rules;
    rows.push_back({r.name, "hadal-" + key.id, limit(r.requests), limit(r.tokens_per_minute), std::to_string(r.priority),
                    r.models.empty() ? "all" : fmt::format("{}", fmt::join(r.models, ",")), r.admin ? "yes" : "no",
                    r.expires > 0 ? write_time(r.expires) : "never"});
  }
  put(table(rows, "llrrrlll"));
}

}  // namespace

void add_keys(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "keys", "API keys of a server", R"(  hadal keys add keys.txt alice --requests 8 --tokens-per-minute 60000
  hadal keys add keys.txt night-batch --priority -10 --expires 2027-01-31
  hadal keys list keys.txt
  hadal keys remove keys.txt alice
  hadal serve --keys keys.txt

`add` prints the key, once: the file holds salted hashes only. It may be edited by hand, comments are kept.
A running server reads it again on SIGHUP (kill -HUP PID).)");
  command->require_subcommand(1);
  const auto add_action = [&](const char* name, const char* what) {
    CLI::App* action = command->add_subcommand(name, what);
    action->add_option("FILE", options->file, "of keys")->required();
    return action;
  };
  CLI::App* add = add_action("add", "makes a key and prints it");
  add->add_option("NAME", options->rules.name, "for people and logs")->required();
  constexpr int64_t most = 1'000'000'000'000;
  add->add_option("--requests", options->rules.requests, "at a time")->check(CLI::Range(int64_t(1), most))->type_name("N");
  add->add_option("--tokens-per-minute", options->rules.tokens_per_minute, "of prompts and replies")
      ->check(CLI::Range(int64_t(1), most))
      ->type_name("N");
  add->add_option("--priority", options->rules.priority, "the highest that its requests may ask for")
      ->check(CLI::Range(-highest_priority, highest_priority))
      ->type_name("N")
      ->capture_default_str();
  add->add_option("--models", options->rules.models, "that it may use; default: all")->delimiter(',')->type_name("NAME,...");
  add->add_option("--expires", options->expires, "when it ends, in UTC: 2027-01-31 or 2027-01-31T23:59:59Z")->type_name("TIME");
  add->add_flag("--admin", options->rules.admin, "may load and remove adapters");
  add->callback([options] {
    if (!options->expires.empty()) options->rules.expires = parse_time(options->expires);
    put(add_key(options->file, options->rules) + "\n");
  });
  CLI::App* show = add_action("list", "what each key may do");
  add_json(show, options->json);
  show->callback([options] { list(*options); });
  CLI::App* remove = add_action("remove", "a key ends, at the server's next SIGHUP");
  remove->add_option("NAME", options->rules.name, "of the key")->required();
  remove->callback([options] { remove_key(options->file, options->rules.name); });
}

}  // namespace hadal
