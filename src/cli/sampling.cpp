#include "cli/sampling.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {

std::pair<int32_t, float> parse_bias(const std::string& text) {
  int32_t id = 0;
  float value = 0;
  const char* end = text.data() + text.size();
  const auto [equals, id_problem] = std::from_chars(text.data(), end, id);
  if (id_problem == std::errc() && id >= 0 && equals != end && *equals == '=') {
    const auto [stop, value_problem] = std::from_chars(equals + 1, end, value);
    if (value_problem == std::errc() && stop == end) return {id, value};
  }
  throw CLI::ValidationError(fmt::format("--logit-bias: expected ID=VALUE like 42=-1.5, found '{}'", text));
}

// The recommendation of the checkpoint's author. A file that is not understood recommends nothing: what is wrong with it is told by whoever
// needs it.
Sampling recommended(const std::filesystem::path& model) {
  Sampling how;
  how.temperature = 0;
  const std::filesystem::path file = model / "generation_config.json";
  if (!std::filesystem::is_regular_file(file)) return how;
  const nlohmann::json config = nlohmann::json::parse(read_text(file, 1 << 20), nullptr, false);
  if (!config.is_object() || !config.value("do_sample", false)) return how;
  const auto take = [&](const char* key, auto& field) {
    if (const auto at = config.find(key); at != config.end() && at->is_number()) at->get_to(field);
  };
  how.temperature = 1;
  take("temperature", how.temperature);
  take("top_k", how.top_k);
  take("top_p", how.top_p);
  take("min_p", how.min_p);
  take("repetition_penalty", how.repeat_penalty);
  return how;
}

}  // namespace

void add_sampling(CLI::App* command, SamplingOptions& options) {
  const std::string group = "Sampling (defaults: the model's generation_config.json, else temperature 0)";
  const auto add = [&](const char* name, auto& field, const char* what, const char* type) {
    command->add_option(name, field, what)->type_name(type)->group(group);
  };
  add("--temperature", options.temperature, "0 takes the likeliest token; higher is more varied", "X");
  add("--top-k", options.top_k, "only the K likeliest tokens; 0: all", "K");
  add("--top-p", options.top_p, "only the likeliest tokens that together reach probability P", "P");
  add("--min-p", options.min_p, "only tokens at least P times as likely as the likeliest", "P");
  add("--repeat-penalty", options.repeat_penalty, "divides the odds of tokens that prompt or reply hold; 1: off", "X");
  add("--presence-penalty", options.presence_penalty, "taken off the logit of tokens that the reply holds", "X");
  add("--frequency-penalty", options.frequency_penalty, "taken off the logit for each time the reply holds the token", "X");
  add("--logit-bias", options.logit_bias, "added to the logit of one token; may be repeated", "ID=VALUE");
  add("--seed", options.seed, "the same seed gives the same text; default: random", "N");
  command->add_option("--stop", options.stop, "ends the reply before this text; may be repeated")->type_name("TEXT")->group(group);
}

Sampling sampling_for(const SamplingOptions& options, const std::filesystem::path& model) {
  Sampling how = recommended(model);
  how.temperature = options.temperature.value_or(how.temperature);
  how.top_k = options.top_k.value_or(how.top_k);
  how.top_p = options.top_p.value_or(how.top_p);
  how.min_p = options.min_p.value_or(how.min_p);
  how.repeat_penalty = options.repeat_penalty.value_or(how.repeat_penalty);
  how.presence_penalty = options.presence_penalty.value_or(0);
  how.frequency_penalty = options.frequency_penalty.value_or(0);
  for (const std::string& bias : options.logit_bias) how.logit_bias.push_back(parse_bias(bias));
  how.seed = options.seed ? *options.seed : random_seed();
  return how;
}

uint64_t random_seed() {
  std::random_device device;
  return device();  // 32 bits: a person can type it again
}

}  // namespace hadal
