// The options that commands share, so that they are named, checked and explained once.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/sampling.h"
#include "core/dtype.h"
#include "infer/draft.h"
#include "infer/recipe.h"
#include "model/source.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace hadal {

struct Adapter;
struct Model;

// A subcommand whose help ends with `examples`, one per line.
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& what, const std::string& examples);

CLI::Option* add_model(CLI::App* command, std::string& model);  // MODEL, required
void add_threads(CLI::App* command);                            // --threads, in force at once
void add_json(CLI::App* command, bool& json);
void add_ids(CLI::App* command, const std::string& name, std::vector<int32_t>& ids, const std::string& what);  // 1,2,3 or "1 2 3"

struct TextOptions {  // -p TEXT, -f FILE, else standard input
  std::optional<std::string> text;
  std::string file;
  bool given() const { return text.has_value() || !file.empty(); }
};
void add_text(CLI::App* command, TextOptions& options);
std::string read_text(const TextOptions& options);   // as it stands
std::string without_last_newline(std::string text);  // for prompts: the newline that editors and echo put behind a text

struct FeedingOptions {  // how the forward pass is fed
  std::string cache;     // "", i8, f16 or f32
  int64_t chunk = 512;
  int64_t window = 0, sinks = 0, top_blocks = 0;  // --attention-..., 0: as the model says
  DType cache_for(const Model& model) const;
  ModelConfig masked(ModelConfig config) const;  // with these masks. Error: the model cannot have them
};
void add_feeding(CLI::App* command, FeedingOptions& options);
void add_masks(CLI::App* command, FeedingOptions& options);  // part of add_feeding

void add_draft(CLI::App* command, Drafting& drafting);  // --draft

struct WeightOptions {            // --weights, --keep
  std::string weights;            // "": as stored
  std::vector<std::string> keep;  // PATTERN=TYPE
  std::string text() const;       // both, as a line
  int64_t memory = 0;             // --memory, bytes; 0: whatever it takes
};
CLI::Option* add_weights(CLI::App* command, WeightOptions& options);
Recipe recipe_of(const WeightOptions& options);  // Error: a pattern without a type, an unknown type
// With a line of progress while weights are packed; with the checkpoint's draft layer where that is wanted and there is one. Error: mtp,
// and there is none.
Model load_model(const ModelSource& source, ModelConfig config, const WeightOptions& weights, Drafting drafting = Drafting::off);

void add_adapter(CLI::App* command, std::string& folder);                                    // --adapter
std::shared_ptr<const Adapter> open_adapter(const Model& model, const std::string& folder);  // none where there is no folder

CLI::Option* add_size(CLI::App* command, const std::string& name, int64_t& bytes, const std::string& help);  // takes 5.7GB and the like
void add_memory(CLI::App* command, WeightOptions& options);                                                  // --memory
// Leaves routed experts on disk where the model, the cache and activations take more than --memory grants. Error: it is too little.
void keep_within(Model& model, const WeightOptions& weights, DType cache, int64_t cache_rows, int64_t max_rows);

struct RunOptions {  // of every command that writes replies
  SamplingOptions sampling;
  FeedingOptions feeding;
  Drafting drafting = Drafting::automatic;
  WeightOptions weights;
};
void add_run(CLI::App* command, RunOptions& options);  // with --threads

ModelSource open_model(const std::string& reference);

}  // namespace hadal
