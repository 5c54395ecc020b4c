// hadal tokenizer: a vocabulary learnt from the data of a run file.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/train/commands.h"
#include "data/train_tokenizer.h"
#include "train/run_config.h"

namespace hadal {
namespace {

struct Options {
  std::string file, output;
  int64_t vocab = 4096;
};

void run(const Options& options) {
  std::vector<std::unique_ptr<Source>> sources;
  std::vector<const Source*> views;
  for (const train::DataConfig& data : train::read_data_of(options.file).train) {
    sources.push_back(open_source(data.source));
    views.push_back(sources.back().get());
  }
  int64_t size = 0;
  {
    Progress progress("learning a vocabulary", "pieces");
    TokenizerOptions how;
    how.vocab = options.vocab;
    how.progress = [&](int64_t done, int64_t all) { progress.update(done, all); };
    size = train_tokenizer(views, options.output, how);
  }
  put(fmt::format("{} tokens: {}\n", with_commas(size), options.output));
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "tokenizer", "learn a byte-level BPE vocabulary from the data of a run file",
                                  R"(  hadal tokenizer models/tokenizer.toml --vocab 4096 --output tokenizer)");
  command->add_option("FILE", options->file, "the run; its [[data]] are read")->required()->check(CLI::ExistingFile);
  command->add_option("--vocab", options->vocab, "tokens at most")
      ->check(CLI::Range(int64_t(261), int64_t(1) << 20))
      ->capture_default_str();
  command->add_option("--output", options->output, "the folder to write")->required()->type_name("FOLDER");
  command->callback([options] { run(*options); });
}

}  // namespace hadal
