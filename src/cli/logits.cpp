// hadal logits: one forward pass over given tokens, its logits in a file.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/error.h"
#include "core/files.h"
#include "eval/logits.h"

namespace hadal {
namespace {

struct Options {
  std::string model, adapter, out;
  std::vector<int32_t> ids;
  FeedingOptions feeding;
  WeightOptions weights;
  bool json = false;
};

void run(const Options& options) {
  namespace fs = std::filesystem;
  // The file is replaced by a new one under its name, which must not happen to a device.
  if (fs::exists(options.out) && !fs::is_regular_file(options.out)) throw Error("cannot write {}: expected a regular file", options.out);
  const ModelSource source = open_model(options.model);
  const ModelConfig config = options.feeding.masked(source.config());
  const int64_t count = int64_t(options.ids.size());
  if (count == 0) throw Error("no tokens to evaluate: give at least one with --ids 1,2,3");
  if (count > config.context && !config.forgets()) throw Error("{} tokens do not fit the model's context of {}", count, config.context);
  Model model = load_model(source, config, options.weights);
  keep_within(model, options.weights, options.feeding.cache_for(model), count, options.feeding.chunk);
  Feeder feeder(model, {options.feeding.cache_for(model), options.feeding.chunk, open_adapter(model, options.adapter)}, count);
  Progress progress("logits", "tokens");
  write_atomically(options.out, [&](std::ostream& out) {
    out << npy_header(count, config.vocab);
    feeder.run(options.ids, 0, count, [&](int64_t row, Mat<float> logits) {
      for (int64_t r = 0; r < logits.rows; ++r)
        out.write(reinterpret_cast<const char*>(logits.row(r)), std::streamsize(sizeof(float)) * logits.cols);
      progress.update(row + logits.rows, count);
    });
  });
  if (options.json)
    return put(nlohmann::ordered_json{{"out", options.out}, {"shape", {count, config.vocab}}, {"dtype", "float32"}}.dump() + "\n");
  put(fmt::format("{}: float32 [{}, {}]\n", options.out, count, config.vocab));
}

}  // namespace

void add_logits(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "logits", "logits of given tokens, into a .npy file", R"(  hadal logits path/to/model --ids 1,2,3 --out logits.npy
  hadal logits path/to/model --ids 1,2,3 --out logits.npy --chunk 1 --cache f32

Row i holds the logits for the token that follows token i: float32 [tokens, vocab], read with numpy.load.
The file appears whole or not at all.)");
  add_model(command, options->model);
  add_ids(command, "--ids", options->ids, "the token ids; nothing is put in front");
  command->get_option("--ids")->required();
  command->add_option("--out", options->out, "the file to write")->required()->type_name("FILE");
  add_adapter(command, options->adapter);
  add_feeding(command, options->feeding);
  add_weights(command, options->weights);
  add_memory(command, options->weights);
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
