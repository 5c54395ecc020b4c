#include "train/run_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include "core/error.h"
#include "core/files.h"
#include "model/source.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

// One table of the file. Every key that is asked for is known; finish() names those that nobody asked for.
class Table {
 public:
  Table(const toml::table& root, const fs::path& file) : table_(root), file_(file), where_(file.string()) {}

  bool has(const std::string& key) const { return table_.contains(key); }
  std::string text(const std::string& key, const std::string& otherwise) { return value<std::string>(key, "a string", otherwise); }
  double number(const std::string& key, double otherwise, double least, double most) {
    const double found = value<double>(key, "a number", otherwise);
    if (!(found >= least && found <= most)) fail(key, fmt::format("a number from {} to {}", least, most), fmt::format("{}", found));
    return found;
  }
  int64_t count(const std::string& key, int64_t otherwise, int64_t least) {
    const int64_t found = value<int64_t>(key, "a whole number", otherwise);
    if (found < least) fail(key, fmt::format("at least {}", least), fmt::format("{}", found));
    return found;
  }
  bool flag(const std::string& key, bool otherwise) { return value<bool>(key, "true or false", otherwise); }
  std::string choice(const std::string& key, const std::string& otherwise, const std::vector<std::string>& choices) {
    const std::string found = text(key, otherwise);
    if (std::ranges::find(choices, found) == choices.end()) fail(key, fmt::format("one of {}", fmt::join(choices, ", ")), found);
    return found;
  }
  std::vector<std::string> texts(const std::string& key) {
    known_.insert(key);
    std::vector<std::string> all;
    const toml::node* node = table_.get(key);
    if (!node) return all;
    if (!node->is_array()) fail(key, "a list of strings", "something else");
    for (const toml::node& each : *node->as_array()) {
      const std::optional<std::string> found = each.value<std::string>();
      if (!found) fail(key, "a list of strings", "something else in it");
      all.push_back(*found);
    }
    return all;
  }
  fs::path beside(const fs::path& path) const { return path.is_absolute() ? path : file_.parent_path() / path; }

  const toml::table* whole(const std::string& key) {  // [key], as it stands; null: there is none
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node && !node->is_table()) fail(key, fmt::format("a table, [{}{}]", prefix_, key), "something else");
    return node ? node->as_table() : nullptr;
  }
  template <class Read>
  void inner(const std::string& key, Read read) {  // read(Table&) of [key], if there is one
    if (const toml::table* found = whole(key)) read_inner(*found, fmt::format("[{}{}]", prefix_, key), key, read);
  }
  template <class Read>
  void each(const std::string& key, Read read) {  // read(Table&) of every [[key]]
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (!node) return;
    if (!node->is_array_of_tables()) fail(key, fmt::format("tables, [[{}{}]]", prefix_, key), "something else");
    int64_t number = 0;
    for (const toml::node& found : *node->as_array())
      read_inner(*found.as_table(), fmt::format("[[{}{}]] {}", prefix_, key, ++number), key, read);
  }
  void finish() const {
    for (const auto& [key, node] : table_)
      if (!known_.contains(std::string(key.str())))
        throw Error("{}: unknown key '{}'; known: {}", where_, std::string(key.str()), fmt::join(known_, ", "));
  }
  [[noreturn]] void fail(const std::string& key, const std::string& expected, const std::string& found) const {
    throw Error("{}: {}: expected {}, found {}", where_, key, expected, found);
  }

 private:
  Table(const toml::table& table, const Table& outer, const std::string& name, const std::string& key)
      : table_(table), file_(outer.file_), where_(outer.file_.string() + ": " + name), prefix_(outer.prefix_ + key + ".") {}
  template <class Read>
  void read_inner(const toml::table& table, const std::string& name, const std::string& key, Read read) {
    Table inner(table, *this, name, key);
    read(inner);
    inner.finish();
  }
  template <class T>
  T value(const std::string& key, const char* expected, const T& otherwise) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (!node) return otherwise;
    const std::optional<T> found = node->value<T>();
    if (found) return *found;
    std::ostringstream shown;
    node->visit([&](const auto& n) { shown << n; });
    fail(key, expected, shown.str());
  }
  const toml::table& table_;
  const fs::path& file_;
  std::string where_, prefix_;  // prefix_: "distill." within [distill]
  std::set<std::string> known_;
};

toml::table parse(const fs::path& file) {
  try {
    return toml::parse(read_text(file, size_t(1) << 20), file.string());
  } catch (const toml::parse_error& error) {
    throw Error("{}: line {}: {}", file.string(), error.source().begin.line, std::string(error.description()));
  }
}

DataConfig read_data(Table& t) {
  DataConfig data;
  SourceConfig& source = data.source;
  source.kind = t.text("kind", "");
  if (source.kind.empty()) t.fail("kind", "a kind of source", "none");
  source.split = t.text("split", source.split);
  if (const std::string path = t.text("path", ""); !path.empty()) source.path = source.kind == "corpus" ? fs::path(path) : t.beside(path);
  source.seed = uint64_t(t.count("seed", 0, 0));
  source.languages = t.texts("languages");
  source.types = t.texts("types");
  source.relations = t.texts("relations");
  source.questions = t.count("questions", 1, 1);
  source.facts = t.count("facts", 0, 0);
  source.text_field = t.text("text_field", source.text_field);
  source.question_field = t.text("question_field", source.question_field);
  source.answer_field = t.text("answer_field", source.answer_field);
  data.rows = t.count("rows", 1, 1);
  data.tokens = t.count("tokens", 0, 0);
  data.whole_rows = t.flag("whole_rows", false);
  data.prompt_weight = t.number("prompt_weight", 0, 0, 1);
  return data;
}

std::vector<DataConfig> read_data_list(Table& root, const std::string& key) {
  std::vector<DataConfig> all;
  root.each(key, [&](Table& t) { all.push_back(read_data(t)); });
  return all;
}

std::string as_json(const toml::table& table) {
  std::ostringstream out;
  out << toml::json_formatter{table};
  return out.str();
}

// [model] is a config.json in other letters; vocabulary and end of text are the tokenizer's where it does not say them.
ModelConfig read_model(toml::table model, const Tokenizer& tokenizer, const std::string& where) {
  if (!model.contains("vocab_size")) model.insert("vocab_size", int64_t(tokenizer.size()));
  if (!model.contains("eos_token_id") && tokenizer.end_token()) model.insert("eos_token_id", int64_t(*tokenizer.end_token()));
  if (!model.contains("bos_token_id") && tokenizer.begin_token()) model.insert("bos_token_id", int64_t(*tokenizer.begin_token()));
  return parse_config(as_json(model), "", where);
}

void read_model_and_tokenizer(Table& root, const fs::path& file, const std::string& instead, TrainConfig& config) {
  const toml::table* model = root.whole("model");
  const std::string tokenizer = root.text("tokenizer", "");
  if (!instead.empty()) {
    config.from = resolve_model(instead);
    config.model = ModelSource(config.from).config();
  } else if (!model) {
    root.fail("model", "a table, [model], or a model to go on from (--from)", "none");
  } else if (const toml::node* from = model->get("from")) {
    const std::optional<std::string> name = from->value<std::string>();
    if (!name || model->size() > 1) throw Error("{}: [model]: beside `from`, a path, expected no other key", file.string());
    const fs::path path = root.beside(*name);
    config.from = fs::exists(path) ? path : resolve_model(*name);
    config.model = ModelSource(config.from).config();
  }
  if (tokenizer.empty() && config.from.empty()) root.fail("tokenizer", "the folder of a tokenizer.json", "none");
  config.tokenizer = tokenizer.empty() ? config.from : root.beside(tokenizer);
  const Tokenizer reader = Tokenizer::from_folder(config.tokenizer);
  if (config.from.empty()) config.model = read_model(*model, reader, file.string() + ": [model]");
  if (config.model.vocab < reader.size())
    throw Error("{}: the model's vocabulary has {} tokens, expected at least the {} of {}", file.string(), config.model.vocab,
                reader.size(), config.tokenizer.string());
  config.model.load_draft = config.model.draft_layers > 0;
}

OptimizerConfig read_optimizer(Table& t) {
  OptimizerConfig o;
  o.kind = t.choice("kind", o.kind, {"adamw", "muon"});
  o.learning_rate = t.number("learning_rate", o.learning_rate, 0, 10);
  o.beta1 = t.number("beta1", o.beta1, 0, 1);
  o.beta2 = t.number("beta2", o.beta2, 0, 1);
  o.epsilon = t.number("epsilon", o.epsilon, 0, 1);
  o.decay = t.number("decay", o.decay, 0, 100);
  o.clip = t.number("clip", o.clip, 0, 1e9);
  o.muon_rate = t.number("muon_rate", o.muon_rate, 0, 10);
  o.muon_momentum = t.number("muon_momentum", o.muon_momentum, 0, 1);
  return o;
}

ScheduleConfig read_schedule(Table& t) {
  ScheduleConfig s;
  s.steps = t.count("steps", s.steps, 1);
  s.shape = t.choice("shape", s.shape, {"cosine", "linear", "trapezoid"});
  s.warmup = t.count("warmup", s.warmup, 0);
  s.cooldown = t.number("cooldown", s.cooldown, 0, 1);
  s.floor = t.number("floor", s.floor, 0, 1);
  return s;
}

TokenLoss read_token_loss(Table& t, const TokenLoss& otherwise) {
  TokenLoss loss = otherwise;
  loss.hard = t.number("hard", loss.hard, 0, 1e6);
  loss.forward = t.number("forward", loss.forward, 0, 1e6);
  loss.reverse = t.number("reverse", loss.reverse, 0, 1e6);
  loss.jsd = t.number("jsd", loss.jsd, 0, 1e6);
  loss.beta = t.number("beta", loss.beta, 0, 1);
  loss.temperature = t.number("temperature", loss.temperature, 0, 1e3);
  return loss;
}

HiddenPair read_hidden(Table& t) {
  HiddenPair pair;
  pair.kind = t.choice("kind", "mse", {"mse", "cosine"}) == "mse" ? HiddenPair::Kind::mse : HiddenPair::Kind::cosine;
  pair.teacher_layer = t.count("teacher_layer", 0, 0);
  pair.student_layer = t.count("student_layer", 0, 0);
  pair.weight = t.number("weight", pair.weight, 0, 1e6);
  return pair;
}

DistillConfig read_distill(Table& t) {
  DistillConfig d;
  const std::string teacher = t.text("teacher", "");
  if (teacher.empty()) t.fail("teacher", "the folder of a model", "none");
  const fs::path path = t.beside(teacher);
  d.teacher = fs::exists(path) ? path : resolve_model(teacher);
  if (const std::string cache = t.text("cache", ""); !cache.empty()) d.cache = t.beside(cache);
  d.loss = read_token_loss(t, d.loss);
  t.each("hidden", [&](Table& hidden) { d.hidden.push_back(read_hidden(hidden)); });
  t.inner("on_policy", [&](Table& own) {
    d.on_policy = own.number("share", 0.3, 0, 1);
    d.on_policy_loss = read_token_loss(own, d.on_policy_loss);
    d.refresh = own.count("refresh", d.refresh, 1);
    d.replies = own.count("replies", d.replies, 1);
  });
  d.check();
  return d;
}

}  // namespace

int64_t TrainConfig::rows() const {
  int64_t all = 0;
  for (const DataConfig& d : data) all += d.rows;
  return all;
}

RunData read_data_of(const fs::path& file) {
  const toml::table parsed = parse(file);
  Table root(parsed, file);
  return {read_data_list(root, "data"), read_data_list(root, "evaluation")};
}

TrainConfig read_train_config(const fs::path& file, const RunOverrides& overrides) {
  const toml::table parsed = parse(file);
  TrainConfig config;
  config.file = file;
  Table root(parsed, file);
  config.output = root.text("output", file.stem().string());
  if (!overrides.output.empty()) config.output = overrides.output;
  config.seed = uint64_t(root.count("seed", 1, 0));
  config.precision = root.choice("precision", config.precision, {"bf16", "f32"});
  read_model_and_tokenizer(root, file, overrides.from, config);
  config.data = read_data_list(root, "data");
  if (config.data.empty()) root.fail("data", "at least one table, [[data]]", "none");
  config.evaluation = read_data_list(root, "evaluation");
  root.inner("batch", [&](Table& t) {
    config.length = t.count("length", config.length, 1);
    config.segments = t.count("segments", config.segments, 1);
    config.memory = t.count("memory", config.segments > 1 ? config.length : 0, 0);
    config.micro_rows = t.count("micro_rows", 0, 0);
    config.recompute = t.flag("recompute", false);
    config.draft_weight = t.number("draft_weight", config.draft_weight, 0, 100);
    config.indexer_weight = t.number("indexer_weight", config.indexer_weight, 0, 100);
  });
  root.inner("optimizer", [&](Table& t) { config.optimizer = read_optimizer(t); });
  root.inner("schedule", [&](Table& t) { config.schedule = read_schedule(t); });
  if (config.schedule.steps == 0) root.fail("schedule", "a table with `steps`", "none");
  root.inner("evaluate", [&](Table& t) {
    config.evaluate_every = t.count("every", config.evaluate_every, 0);
    config.evaluate_batches = t.count("batches", config.evaluate_batches, 1);
  });
  root.inner("save", [&](Table& t) {
    config.save_every = t.count("every", config.save_every, 1);
    config.keep = t.count("keep", config.keep, 1);
    config.ema = t.number("ema", config.ema, 0, 1);
    config.type = t.choice("type", "bf16", {"bf16", "f32"}) == "f32" ? DType::f32 : DType::bf16;
  });
  root.inner("balance", [&](Table& t) {
    BalanceConfig& b = config.balance;
    b.kind = balance_kind(t.choice("kind", "none", balance_kinds()));
    if (t.has("weight")) b.weight = t.number("weight", 0, 0, 1e6);
    if (t.has("rate")) b.rate = t.number("rate", 0, 0, 1);
    b.z_loss = t.number("z_loss", b.z_loss, 0, 1e6);
    b.sweeps = t.count("sweeps", b.sweeps, 1);
  });
  root.inner("distill", [&](Table& t) { config.distill = read_distill(t); });
  root.finish();
  return config;
}

}  // namespace hadal::train
