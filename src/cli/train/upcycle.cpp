// hadal upcycle: a dense model made into a mixture of experts that says the same.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/train/commands.h"
#include "model/source.h"
#include "train/upcycle.h"

namespace hadal {
namespace {

struct Options {
  std::string dense, folder, router = "softmax", type = "bf16";
  train::Upcycling how;
  bool no_bias = false, json = false;
};

void run(const Options& options) {
  train::Upcycling how = options.how;
  how.score = options.router == "sigmoid" ? RouterScore::sigmoid : RouterScore::softmax;
  how.bias = !options.no_bias;
  const std::filesystem::path dense = resolve_model(options.dense);
  train::upcycle_checkpoint(dense, how, options.type == "f32" ? DType::f32 : DType::bf16, options.folder);
  const ModelConfig config = read_config(options.folder);
  if (options.json) {
    const nlohmann::ordered_json json{{"folder", options.folder},
                                      {"experts", config.moe.experts},
                                      {"active", config.moe.active},
                                      {"shared", config.moe.shared},
                                      {"expert_dim", config.moe.expert_dim}};
    return put(json.dump(2) + "\n");
  }
  put(fmt::format("{} experts of width {}, {} a token, {} shared: {}\n", config.moe.experts, config.moe.expert_dim, config.moe.active,
                  config.moe.shared, options.folder));
  note("train it with [model] from = the folder, and [balance] kind = \"bias\"");
}

}  // namespace

void add_upcycle(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "upcycle", "make a dense model into a mixture of experts",
                                  R"(  hadal upcycle runs/dense/model mixture --experts 8 --active 2
  hadal upcycle runs/dense/model mixture --experts 64 --active 8 --expert-dim 128 --shared 0

Each feed-forward layer of width W is cut into W / expert-dim slices. The first --shared of them are run for every token; of the others there are
copies, as many as --experts has room for, and a router that chooses whole copies. What the model says is what the dense one said, until training
or --router-noise makes the copies differ.)");
  command->add_option("DENSE", options->dense, "a dense model")->required()->type_name("");
  command->add_option("OUT", options->folder, "a new folder")->required()->type_name("");
  const auto number = [&](const char* name, int64_t& value, const char* help) {
    command->add_option(name, value, help)->check(CLI::NonNegativeNumber)->type_name("N")->capture_default_str();
  };
  number("--experts", options->how.experts, "routed experts of a layer");
  number("--active", options->how.active, "of them for each token");
  number("--expert-dim", options->how.expert_dim, "width of each; 0: that of the dense layer");
  number("--shared", options->how.shared, "experts that every token goes through");
  number("--dense-layers", options->how.dense_layers, "first layers that stay dense");
  number("--groups", options->how.groups, "of experts, each of whole copies");
  number("--active-groups", options->how.active_groups, "of them whose experts a token may go to");
  command->add_option("--router", options->router, "what turns the router's logits into scores")
      ->check(CLI::IsMember({"softmax", "sigmoid"}))
      ->capture_default_str();
  command->add_flag("--no-bias", options->no_bias, "no selection bias; only losses can balance such a model");
  command
      ->add_option("--router-noise", options->how.router_noise,
                   "added to each expert's router row, in its deviations; above 0 changes the output")
      ->check(CLI::Range(0., 10.))
      ->capture_default_str();
  command->add_option("--seed", options->how.seed, "of the router")->capture_default_str();
  command->add_option("--type", options->type, "of the weights written")->check(CLI::IsMember({"bf16", "f32"}))->capture_default_str();
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
