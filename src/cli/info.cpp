// hadal info: what a checkpoint is, without running it.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "core/files.h"
#include "infer/expert_store.h"
#include "infer/kv_cache.h"
#include "model/params.h"
#include "model/part_names.h"
#include "model/presets.h"
#include "plan/residency.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model;
  FeedingOptions feeding;  // its masks
  WeightOptions weights;   // its memory
  int64_t context = 0;
  bool json = false;
};

struct Forecast {  // of the model within --memory
  Residency residency;
  double disk = 0, seconds = 0;  // bytes per second; of a token behind half the context
};

struct CacheSize {  // of one type
  DType type;
  int64_t row, bytes;  // of one token without masks; of `Facts::tokens`
};

struct Stored {
  int64_t values = 0, bytes = 0;
};

struct Facts {  // everything that is shown
  ModelConfig config;
  std::map<std::string_view, Stored> by_part, by_type;
  Stored all;
  ParameterCount parameters;
  int64_t tokens = 0;  // whose memory is counted
  std::vector<CacheSize> cache;
  std::vector<std::pair<std::string, int64_t>> files;  // name, bytes
};

struct TextSide {  // what a checkpoint needs to read and write text; each may be absent or broken, which `info` tells and survives
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat;
  std::string tokenizer_problem, chat_problem;
};

TextSide text_side(const ModelSource& source) {
  TextSide side;
  try {
    side.tokenizer.emplace(source.tokenizer());
  } catch (const Error& error) {
    side.tokenizer_problem = error.what();
  }
  try {
    if (std::optional<ChatTemplate> chat = source.chat_template()) side.chat.emplace(std::move(*chat));
  } catch (const Error& error) {
    side.chat_problem = error.what();
  }
  return side;
}

struct Counted {          // of one tensor
  std::string name;       // that of the matrix it belongs to
  std::string_view type;  // a packed matrix's for its three tensors
  Stored sum;
};

// Tells packed matrices from plain tensors (docs/formats.md).
class Counter {
 public:
  Counter(const ModelConfig& config, const Checkpoint& checkpoint) : tensors_(checkpoint.tensors) {
    Params<int> params = make_params<int>(config);
    for_each_param(config, params, [&](const std::string& name, Shape shape, Role, int&) { values_[name] = shape.rows * shape.cols; });
  }
  Counted operator()(const std::string& name, const StoredTensor& tensor) const {
    const int64_t values = tensor.count(), bytes = bytes_of(tensor.dtype, values);
    if (const std::string_view packed = packed_type(name); !packed.empty()) return {name, packed, {values_.at(name), bytes}};
    for (const std::string_view end : {"_scale", "_sum"})
      if (name.ends_with(end)) {
        const std::string matrix = name.substr(0, name.size() - end.size());
        if (const std::string_view packed = packed_type(matrix); !packed.empty()) return {matrix, packed, {0, bytes}};
      }
    return {name, name_of(tensor.dtype), {values, bytes}};
  }

 private:
  std::string_view packed_type(const std::string& name) const {
    const auto at = tensors_.find(name);
    if (at == tensors_.end() || at->second.dtype != DType::u8 || at->second.shape.size() != 2 || !values_.contains(name)) return {};
    for (const DType t : {DType::w8, DType::w4, DType::w3, DType::w2})
      if (at->second.shape[1] == info_of(t).block_bytes) return name_of(t);
    return {};
  }
  const std::map<std::string, StoredTensor>& tensors_;
  std::map<std::string, int64_t> values_;
};

std::string bits_each(const Stored& s) { return s.values > 0 ? fmt::format("{:.2f}", 8.0 * double(s.bytes) / double(s.values)) : "-"; }

Facts gather(const ModelSource& source, const Options& options) {
  Facts facts;
  facts.config = options.feeding.masked(source.config());
  const Checkpoint checkpoint = source.checkpoint();
  const Counter counter(facts.config, checkpoint);
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const Counted counted = counter(name, tensor);
    for (Stored* sum : {&facts.by_part[part_of(counted.name, facts.config.layers)], &facts.by_type[counted.type], &facts.all}) {
      sum->values += counted.sum.values;
      sum->bytes += counted.sum.bytes;
    }
  }
  facts.parameters = count_parameters(facts.config);
  facts.tokens = options.context > 0 ? options.context : facts.config.context;
  for (const DType type : {DType::i8, DType::f16, DType::f32})
    facts.cache.push_back({type, KvCache::bytes_per_row(facts.config, type), KvCache::bytes(facts.config, type, facts.tokens)});
  for (const auto& file : checkpoint.files) facts.files.emplace_back(file->path().filename().string(), int64_t(file->bytes().size()));
  return facts;
}

// The masks of the layers, equal ones together; empty where every layer sees all.
std::string mask_line(const ModelConfig& c) {
  std::vector<std::pair<LayerMask, int64_t>> masks;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const LayerMask mask = c.mask_of(layer);
    const auto at = std::ranges::find(masks, mask, &std::pair<LayerMask, int64_t>::first);
    at == masks.end() ? void(masks.push_back({mask, 1})) : void(++at->second);
  }
  if (masks.size() == 1 && masks[0].first == LayerMask{}) return "";
  std::string line;
  for (const auto& [mask, layers] : masks) {
    line += line.empty() ? "" : "; ";
    line += mask.window > 0 ? fmt::format("the last {}", with_commas(mask.window)) : "all tokens";
    if (mask.sinks > 0) line += fmt::format(" and the first {}", with_commas(mask.sinks));
    if (mask.top_blocks > 0) line += fmt::format(", of these the best {} blocks of 64", with_commas(mask.top_blocks));
    line += fmt::format(" in {} layer{}", layers, layers == 1 ? "" : "s");
  }
  return line;
}

std::string attention_line(const ModelConfig& c) {
  std::string line;
  if (c.attention == AttentionKind::mla) {
    line = fmt::format("latent (MLA): {} heads, latents of {} + {} rotated, queries {}", c.heads, c.kv_rank, c.rope_dim,
                       c.q_rank > 0 ? fmt::format("of rank {}", c.q_rank) : "of full rank");
  } else {
    line = fmt::format("{} query heads, {} key/value heads of {}", c.heads, c.kv_heads, c.head_dim);
    if (c.qkv_bias) line += ", with bias";
    if (c.qk_norm) line += ", normed queries and keys";
  }
  if (c.indexer.heads > 0) line += fmt::format("; an indexer of {} heads picks {} keys", c.indexer.heads, with_commas(c.indexer.keys));
  return line;
}

std::string feed_forward_line(const ModelConfig& c) {
  if (c.moe.experts == 0) return fmt::format("dense, {}", with_commas(c.ffn_dim));
  std::string line = fmt::format("{} experts of {}, {} active", c.moe.experts, with_commas(c.moe.expert_dim), c.moe.active);
  if (c.moe.shared > 0) line += fmt::format(", {} shared", c.moe.shared);
  if (c.moe.groups > 1) line += fmt::format(", from {} of {} groups", c.moe.active_groups, c.moe.groups);
  line += c.moe.score == RouterScore::softmax   ? ", softmax router"
          : c.moe.score == RouterScore::sigmoid ? ", sigmoid router"
                                                : ", sqrt-softplus router";
  if (c.dense_layers > 0)
    line += fmt::format("; the first {} dense, {}", c.dense_layers == 1 ? "layer" : fmt::format("{} layers", c.dense_layers),
                        with_commas(c.ffn_dim));
  return line;
}

std::string rope_scaling(const RopeConfig& rope) {
  switch (rope.scaling) {
    case RopeScaling::none:
      return "";
    case RopeScaling::linear:
      return fmt::format(", linear scaling by {}", rope.factor);
    case RopeScaling::llama3:
      return fmt::format(", llama3 scaling by {} from {}", rope.factor, with_commas(rope.original_context));
    case RopeScaling::yarn:
      return fmt::format(", YaRN scaling by {} from {}", rope.factor, with_commas(rope.original_context));
    case RopeScaling::table:
      return ", divided by a table in the file";
  }
  return "";
}

std::string tokenizer_line(const Tokenizer& t) {
  return fmt::format("{} tokens, {}", with_commas(t.size()), t.adds_begin() ? "puts a begin token in front" : "no begin token in front");
}

std::string first_line(const std::string& text) { return in_quotes(text.substr(0, std::min<size_t>(text.find('\n'), 60))); }

void print_table(const ModelSource& source, const Facts& facts, const TextSide& side) {
  const ModelConfig& c = facts.config;
  const Style style = output_style();
  const auto heading = [&](const char* text) { put(fmt::format("\n{}{}{}\n", style.bold, text, style.plain)); };
  std::vector<std::vector<std::string>> rows;
  rows.push_back({"model", source.path().string()});
  rows.push_back({"family", c.family});
  rows.push_back({"parameters", with_commas(facts.parameters.total)});
  if (facts.parameters.active != facts.parameters.total) rows.push_back({"  active per token", with_commas(facts.parameters.active)});
  rows.push_back(
      {"layers", c.draft_layers > 0 ? fmt::format("{}, and {} for guessing tokens", c.layers, c.draft_layers) : std::to_string(c.layers)});
  rows.push_back({"width", with_commas(c.dim)});
  rows.push_back({"attention", attention_line(c)});
  rows.push_back({"feed-forward", feed_forward_line(c)});
  rows.push_back({"rotary positions", fmt::format("base {}{}", c.rope.theta, rope_scaling(c.rope))});
  rows.push_back({"vocabulary", fmt::format("{}, head {}", with_commas(c.vocab), c.tied_head ? "tied to the embedding" : "of its own")});
  rows.push_back({"context", with_commas(c.context) + " tokens"});
  if (const std::string masks = mask_line(c); !masks.empty()) rows.push_back({"  each token sees", masks});
  for (const CacheSize& size : facts.cache)
    rows.push_back({fmt::format("  memory in {}", size.type == DType::i8    ? "i8"
                                                  : size.type == DType::f16 ? "f16"
                                                                            : "f32"),
                    fmt::format("{} bytes a token; {} for {} tokens; with the stored weights {}", with_commas(size.row),
                                as_bytes(double(size.bytes)), with_commas(facts.tokens), as_bytes(double(size.bytes + facts.all.bytes)))});
  rows.push_back({"tokenizer", side.tokenizer ? tokenizer_line(*side.tokenizer) : "none: " + side.tokenizer_problem});
  rows.push_back({"chat template", side.chat                   ? "yes, " + first_line(side.chat->source())
                                   : side.chat_problem.empty() ? "no: a base model"
                                                               : "not understood: " + side.chat_problem});
  put(table(rows, "ll"));

  heading("Stored weights");
  rows = {{"part", "values", "bytes", "bits each", "share"}};
  for (const std::string_view part : part_names) {
    const auto at = facts.by_part.find(part);
    if (at == facts.by_part.end()) continue;
    rows.push_back({std::string(part), with_commas(at->second.values), as_bytes(double(at->second.bytes)), bits_each(at->second),
                    fmt::format("{:.1f} %", 100.0 * double(at->second.bytes) / double(facts.all.bytes))});
  }
  rows.push_back({"all", with_commas(facts.all.values), as_bytes(double(facts.all.bytes)), bits_each(facts.all), ""});
  for (const auto& [type, sum] : facts.by_type)
    rows.push_back({fmt::format("  as {}", type), with_commas(sum.values), as_bytes(double(sum.bytes)), bits_each(sum),
                    fmt::format("{:.1f} %", 100.0 * double(sum.bytes) / double(facts.all.bytes))});
  put(table(rows, "lrrrr"));

  heading("Files");
  rows = {};
  for (const auto& [name, bytes] : facts.files) rows.push_back({name, as_bytes(double(bytes))});
  put(table(rows, "lr"));
}

void print_json(const ModelSource& source, const Facts& facts, const TextSide& side, const Json& within) {
  const ModelConfig& c = facts.config;
  Json json{{"model", source.path().string()}, {"family", c.family}};
  json["parameters"] = {{"total", facts.parameters.total}, {"active", facts.parameters.active}};
  json["layers"] = c.layers;
  json["dim"] = c.dim;
  json["heads"] = c.heads;
  json["vocab"] = c.vocab;
  json["context"] = c.context;
  json["attention"] = attention_line(c);
  json["feed_forward"] = feed_forward_line(c);
  json["experts"] = c.moe.experts;
  json["active_experts"] = c.moe.active;
  json["tied_head"] = c.tied_head;
  json["draft_layers"] = c.draft_layers;
  json["cache_tokens"] = facts.tokens;
  for (const CacheSize& size : facts.cache) {
    const std::string type = size.type == DType::i8 ? "i8" : size.type == DType::f16 ? "f16" : "f32";
    json["bytes_per_context_token"][type] = size.row;
    json["cache_bytes"][type] = size.bytes;
  }
  json["stored"] = {{"values", facts.all.values}, {"bytes", facts.all.bytes}};
  for (const auto& [part, sum] : facts.by_part) json["parts"][std::string(part)] = {{"values", sum.values}, {"bytes", sum.bytes}};
  for (const auto& [type, sum] : facts.by_type) json["types"][std::string(type)] = {{"values", sum.values}, {"bytes", sum.bytes}};
  json["tokenizer"] = side.tokenizer ? Json{{"size", side.tokenizer->size()}, {"adds_begin", side.tokenizer->adds_begin()}} : Json();
  json["chat_template"] = side.chat ? Json(side.chat->source()) : Json();
  for (const auto& [name, bytes] : facts.files) json["files"].push_back({{"name", name}, {"bytes", bytes}});
  if (!within.is_null()) json["within"] = within;
  put(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

// With i8 for keys and values, as packed models keep them, and the prompt read 512 rows at a time.
Forecast forecast(const Options& options, const ModelSource& source, int64_t rows) {
  const Checkpoint checkpoint = source.checkpoint();
  const Model model =
      load_model(options.feeding.masked(source.config()), checkpoint, {.recipe = {}, .experts_on_disk = true, .progress = {}});
  Forecast f;
  f.residency = fit(model, options.weights.memory, DType::i8, rows, 512);
  if (f.residency.streams) f.disk = measure_disk(checkpoint.files.front()->path(), ExpertStore::slot_bytes(model), 1);
  f.seconds = seconds_per_token(model, f.residency, probe_machine(true), f.disk, DType::i8, double(rows) / 2);
  return f;
}

void print_forecast(const Options& options, const Forecast& f, int64_t rows) {
  const Residency& r = f.residency;
  const Style style = output_style();
  put(fmt::format("\n{}Within {}{}\n", style.bold, as_bytes(double(options.weights.memory)), style.plain));
  std::vector<std::vector<std::string>> lines{
      {"weights that every token reads", as_bytes(double(r.fixed))},
      {fmt::format("keys and values of {} tokens in i8", with_commas(rows)), as_bytes(double(r.cache))},
      {"activations", as_bytes(double(r.scratch))},
      {"routed experts in memory", fmt::format("{}, {} of them", as_bytes(double(r.arena)), with_commas(r.slots))}};
  if (r.streams)
    lines.push_back(
        {"found there", fmt::format("{:.0f} % where all are asked for alike; the disk gives {}/s", 100 * r.hit_rate, as_bytes(f.disk))});
  lines.push_back({"tokens/s, one reply", as_rate(1 / f.seconds)});
  put(table(lines, "lr"));
}

Json forecast_json(const Forecast& f) {
  const Residency& r = f.residency;
  return {{"fixed", r.fixed},
          {"cache", r.cache},
          {"scratch", r.scratch},
          {"experts", r.arena},
          {"slots", r.slots},
          {"streams", r.streams},
          {"hit_rate", r.hit_rate},
          {"disk_bytes_per_second", f.disk},
          {"tokens_per_second", 1 / f.seconds}};
}

void run(const Options& options) {
  const ModelSource source = open_model(options.model);
  const Facts facts = gather(source, options);
  std::optional<Forecast> within;
  if (options.weights.memory > 0) within = forecast(options, source, facts.tokens);
  if (options.json) return print_json(source, facts, text_side(source), within ? forecast_json(*within) : Json());
  print_table(source, facts, text_side(source));
  if (within) print_forecast(options, *within, facts.tokens);
}

}  // namespace

void add_info(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "info", "what a checkpoint is: shapes, parameters, bytes, tokenizer, template, files", R"(  hadal info smollm2
  hadal info path/to/model --json
  hadal info path/to/model --context 10240 --attention-window 512 --attention-sinks 4
  hadal info path/to/model --memory 5.7GB --context 4096       what would stay in memory, and the speed to expect)");
  add_model(command, options->model);
  command->add_option("--context", options->context, "tokens whose memory is counted; default: the model's context")
      ->check(CLI::Range(int64_t(1), int64_t(1) << 30))
      ->type_name("N");
  add_masks(command, options->feeding);
  add_memory(command, options->weights);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
