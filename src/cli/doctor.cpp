// hadal doctor: what this machine offers, and which of the published shapes it could run.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "infer/kv_cache.h"
#include "model/presets.h"
#include "plan/machine.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t context_for_fit = 4096;

struct Fit {
  const Preset* preset;
  double weights, cache;  // bytes: bf16 weights, f16 keys and values of context_for_fit tokens
  bool fits;
  double fastest;  // tokens/s that reading the active weights allows
};

std::vector<Fit> fits_on(const Machine& machine) {
  std::vector<Fit> fits;
  for (const Preset& preset : presets()) {
    const ParameterCount count = count_parameters(preset.config);
    const double weights = 2.0 * double(count.total), cache = double(context_for_fit * KvCache::bytes_per_row(preset.config, DType::f16));
    fits.push_back(
        {&preset, weights, cache, weights + cache < 0.95 * double(machine.memory), machine.read_all / (2.0 * double(count.active))});
  }
  return fits;
}

std::string gflops(double flops) { return flops > 0 ? fmt::format("{} GFLOPS", as_rate(flops / 1e9)) : "not measured"; }

void print_table(const Machine& machine) {
  const Style style = output_style();
  std::vector<std::vector<std::string>> rows{{"processor", machine.cpu}};
  rows.push_back({"cores", fmt::format("{}, computing with {} thread{}", machine.cores, machine.threads, machine.threads == 1 ? "" : "s")});
  for (const IsaLevel& level : machine.levels) {
    const std::string state = level.used ? "in use" : level.usable ? "usable" : "not on this machine";
    rows.push_back({"  " + level.name, state + (level.flops_one > 0 ? fmt::format(", {} with one thread", gflops(level.flops_one)) : "")});
  }
  rows.push_back({"memory", fmt::format("{}, {} available", as_bytes(double(machine.memory)), as_bytes(double(machine.available)))});
  rows.push_back({"huge pages", machine.huge_pages});
  rows.push_back({"reads", fmt::format("{}/s with one thread, {}/s with all", as_bytes(machine.read_one), as_bytes(machine.read_all))});
  rows.push_back({"f32 peak", fmt::format("{} with one thread, {} with all", gflops(machine.flops_one), gflops(machine.flops_all))});
  rows.push_back(
      {"int8 peak", fmt::format("{} GOPS with one thread, {} with all", as_rate(machine.ops_one / 1e9), as_rate(machine.ops_all / 1e9))});
  put(table(rows, "ll"));
  put(fmt::format("\n{}Published models here, bf16 weights and {} tokens of context{}\n", style.bold, with_commas(context_for_fit),
                  style.plain));
  rows = {{"name", "weights", "context", "fits", "tokens/s at most"}};
  for (const Fit& fit : fits_on(machine))
    rows.push_back(
        {fit.preset->name, as_bytes(fit.weights), as_bytes(fit.cache), fit.fits ? "yes" : "no", fit.fits ? as_rate(fit.fastest) : "-"});
  put(table(rows, "lrrlr"));
}

void print_json(const Machine& machine) {
  Json json{{"cpu", machine.cpu}, {"cores", machine.cores}, {"threads", machine.threads}, {"isa", machine.isa}};
  for (const IsaLevel& l : machine.levels)
    json["levels"].push_back(
        {{"name", l.name}, {"usable", l.usable}, {"used", l.used}, {"flops_one", l.flops_one}, {"ops_one", l.ops_one}});
  json["memory"] = machine.memory;
  json["available"] = machine.available;
  json["huge_pages"] = machine.huge_pages;
  json["read_bandwidth"] = {{"one", machine.read_one}, {"all", machine.read_all}};
  json["peak_flops"] = {{"one", machine.flops_one}, {"all", machine.flops_all}};
  json["peak_ops"] = {{"one", machine.ops_one}, {"all", machine.ops_all}};
  for (const Fit& fit : fits_on(machine))
    json["models"].push_back({{"name", fit.preset->name},
                              {"weights", fit.weights},
                              {"context", fit.cache},
                              {"fits", fit.fits},
                              {"tokens_per_second_limit", fit.fastest}});
  put(json.dump(2) + "\n");
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = add_command(app, "doctor", "what this machine offers, and which models would fit", R"(  hadal doctor
  hadal doctor --threads 1 --json
  HADAL_ISA=avx2 hadal doctor            the same at a lower instruction set

Takes a few seconds to measure. A model fits when bf16 weights and context take less than 95 % of the memory; tokens/s at most:
measured read bandwidth / bytes of the weights that a token needs.)");
  add_threads(command);
  add_json(command, *json);
  command->callback([json] { (*json ? print_json : print_table)(probe_machine(true)); });
}

}  // namespace hadal
