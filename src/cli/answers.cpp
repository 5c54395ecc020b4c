// hadal answers: questions of a data source answered, and how much of that is right.
#include "eval/answers.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "core/error.h"
#include "core/files.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, out, against;
  SourceConfig source;
  int64_t first = 0, questions = 5000, max_tokens = 48, batch = 64;
  uint64_t seed = 1;  // of the resampling
  FeedingOptions feeding;
  WeightOptions weights;
  bool json = false;
};

std::vector<Example> questions_of(const Options& options) {
  const std::unique_ptr<Source> source = open_source(options.source);
  if (options.first >= source->size()) throw Error("--first {} is out of range: the source has {} examples", options.first, source->size());
  const int64_t count = std::min(options.questions, source->size() - options.first);
  std::vector<Example> questions;
  for (int64_t i = 0; i < count; ++i) {
    Example example = source->at(options.first + i);
    if (!example.is_question()) continue;
    const std::vector<Turn> more = options.source.questions > 1 ? example.more : std::vector<Turn>();
    questions.push_back(example);
    for (const Turn& turn : more) questions.push_back({example.text, turn.question, turn.answer, turn.type, example.language});
  }
  if (questions.empty()) throw Error("{}: expected questions among the {} examples, found none", options.source.kind, count);
  return questions;
}

// A line each, as the source "jsonl" reads them: with the reply for an answer.
void write_answers(const std::string& file, const std::vector<Example>& questions, const std::vector<std::string>& answers) {
  write_atomically(file, [&](std::ostream& out) {
    for (size_t i = 0; i < questions.size(); ++i) {
      const Example& q = questions[i];
      const Json line{{"text", q.text},       {"question", q.question}, {"answer", answers[i]},
                      {"expected", q.answer}, {"type", q.type},         {"language", q.language}};
      out << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    }
  });
}

std::vector<std::string> read_answers(const std::string& file, const std::vector<Example>& questions) {
  std::vector<std::string> answers;
  std::istringstream lines(hadal::read_text(std::filesystem::path(file)));
  for (std::string line; std::getline(lines, line);) {
    const std::string where = fmt::format("{}:{}", file, answers.size() + 1);
    const Json json = Json::parse(line, nullptr, false);
    const auto text = [&](const char* field) {
      if (!json.is_object() || !json.contains(field) || !json[field].is_string())
        throw Error("{}: expected an object with the text \"{}\", as `hadal answers --out` writes", where, field);
      return json[field].get<std::string>();
    };
    const size_t at = answers.size();
    answers.push_back(text("answer"));
    if (at >= questions.size()) throw Error("{}: expected {} answers, found more", file, questions.size());
    const Example& q = questions[at];
    if (text("text") != q.text || text("question") != q.question || text("expected") != q.answer)
      throw Error("{}: expected an answer to \"{}\", found one to \"{}\": the files answer other questions", where, q.question,
                  text("question"));
  }
  if (answers.size() != questions.size()) throw Error("{}: expected {} answers, found {}", file, questions.size(), answers.size());
  return answers;
}

Json json_of(const Interval& i) { return {i.low, i.high}; }

Json json_of(const Score& s) {
  Json json;
  if (!s.type.empty()) json["type"] = s.type;
  if (!s.language.empty()) json["language"] = s.language;
  json.update({{"questions", s.questions},
               {"exact", s.exact},
               {"exact_interval", json_of(s.exact_interval)},
               {"normalized", s.normalized},
               {"majority", s.majority}});
  return json;
}

Json json_of(const Retention& r) {
  Json json;
  if (!r.type.empty()) json["type"] = r.type;
  json.update({{"questions", r.questions},
               {"teacher", r.teacher},
               {"student", r.student},
               {"chance", r.chance},
               {"retention", r.kept},
               {"retention_interval", json_of(r.kept_interval)},
               {"corrected", r.corrected},
               {"corrected_interval", json_of(r.corrected_interval)},
               {"agreement", r.agreement}});
  return json;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }
std::string percent(const Interval& i) { return fmt::format("{:.1f} to {:.1f}", 100 * i.low, 100 * i.high); }

std::string table_of(const std::vector<Score>& scores) {
  std::vector<std::vector<std::string>> rows{{"type", "language", "questions", "exact", "95 %", "normalized", "majority"}};
  for (const Score& s : scores)
    rows.push_back({s.type.empty() ? "all" : s.type, s.language.empty() ? "all" : s.language, with_commas(s.questions), percent(s.exact),
                    percent(s.exact_interval), percent(s.normalized), percent(s.majority)});
  return table(rows, "llrrrrr");
}

std::string table_of(const std::vector<Retention>& retentions) {
  std::vector<std::vector<std::string>> rows{{"type", "teacher", "student", "kept", "95 %", "above chance", "95 %", "same answer"}};
  for (const Retention& r : retentions)
    rows.push_back({r.type.empty() ? "all" : r.type, percent(r.teacher), percent(r.student), percent(r.kept), percent(r.kept_interval),
                    percent(r.corrected), percent(r.corrected_interval), percent(r.agreement)});
  return table(rows, "lrrrrrrr");
}

std::vector<std::string> answer(const Options& options, const std::vector<Example>& questions) {
  const ModelSource source = open_model(options.model);
  const std::optional<ChatTemplate> chat = source.chat_template();
  if (!chat) throw Error("{}: a base model without a chat template answers no questions", options.model);
  Model model = load_model(source, options.feeding.masked(source.config()), options.weights);
  Progress progress("answering", "questions");
  AnswerOptions how{.max_tokens = options.max_tokens, .batch = options.batch, .chunk = options.feeding.chunk};
  how.cache = options.feeding.cache_for(model);
  how.progress = [&](int64_t done, int64_t all) {
    progress.update(done, all);
    return !interrupted();
  };
  return answer_questions(model, source.tokenizer(), *chat, questions, how);
}

void run(const Options& options) {
  InterruptGuard guard;
  const std::vector<Example> questions = questions_of(options);
  const std::vector<std::string> reference =
      options.against.empty() ? std::vector<std::string>() : read_answers(options.against, questions);
  const std::vector<std::string> answers = answer(options, questions);
  if (answers.empty()) return;  // interrupted
  if (!options.out.empty()) write_answers(options.out, questions, answers);
  const std::vector<Score> scores = score_answers(questions, answers, options.seed);
  const std::vector<Retention> retentions =
      reference.empty() ? std::vector<Retention>() : compare_answers(questions, answers, reference, options.seed);
  if (options.json) {
    Json json{{"model", options.model}, {"source", options.source.kind}, {"split", options.source.split}, {"all", json_of(scores[0])}};
    for (size_t i = 1; i < scores.size(); ++i) json["groups"].push_back(json_of(scores[i]));
    for (const Retention& r : retentions) json["against"].push_back(json_of(r));
    return put(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  put(table_of(scores));
  if (!retentions.empty()) put("\nof " + options.against + ":\n" + table_of(retentions));
  if (!options.out.empty()) note("answers: " + options.out);
}

}  // namespace

void add_answers(CLI::App& app) {
  auto options = std::make_shared<Options>();
  options->source.kind = "world_qa";
  options->source.split = "worlds";
  CLI::App* command = add_command(app, "answers", "answer questions, and count what is right", R"(  hadal answers nano-v2 --questions 500
  hadal answers teacher --split worlds --out teacher.jsonl
  hadal answers student --split worlds --against teacher.jsonl --json      what a student keeps of its teacher
  hadal answers path/to/model --source jsonl --path questions.jsonl

Each question is put behind the model's chat template, alone; the reply is the likeliest one. exact: the reply is the answer letter by letter;
normalized: but for capitals, articles, spaces and punctuation. majority: what the commonest answer to questions of that type and language would reach.
Intervals are of 95 %, by drawing the questions anew 1,000 times. With --against, both models' answers to the same drawn questions are compared:
kept is accuracy over accuracy; above chance, both less that of the commonest answers.)");
  add_model(command, options->model);
  SourceConfig& source = options->source;
  command->add_option("--source", source.kind, "where the questions come from: world_qa, recall, jsonl")
      ->type_name("KIND")
      ->capture_default_str();
  command->add_option("--path", source.path, "of a source that is files")->type_name("PATH");
  command->add_option("--split", source.split, "world_qa: train, worlds, templates, compositions; files: train, test, all")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--data-seed", source.seed, "of a source that is made")->type_name("N")->capture_default_str();
  command->add_option("--languages", source.languages, "of world_qa: english, chinese; default: both")->delimiter(',')->type_name("LIST");
  command->add_option("--types", source.types, "of world_qa; default: all")->delimiter(',')->type_name("LIST");
  command->add_option("--relations", source.relations, "of world_qa: city, job, born, ...; default: all")
      ->delimiter(',')
      ->type_name("LIST");
  command->add_option("--facts", source.facts, "of world_qa, told in a document; default: 7 to 10")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  const auto number = [&](const char* name, int64_t& value, int64_t least, const char* help) {
    command->add_option(name, value, help)->check(CLI::Range(least, int64_t(1) << 40))->type_name("N")->capture_default_str();
  };
  number("--per-document", source.questions, 1, "of world_qa, questions about each document, at most; each is asked alone");
  number("--first", options->first, 0, "number of the first example");
  number("--questions", options->questions, 1, "examples that are read, at most");
  number("--max-tokens", options->max_tokens, 1, "of a reply");
  number("--batch", options->batch, 1, "questions answered at a time");
  command->add_option("--seed", options->seed, "of the intervals")->type_name("N")->capture_default_str();
  command->add_option("--out", options->out, "write the answers here, a JSON object a line")->type_name("FILE");
  command->add_option("--against", options->against, "another model's answers to the same questions")
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  add_feeding(command, options->feeding);
  add_weights(command, options->weights);
  add_threads(command);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
