// hadal generate: one prompt in, one reply out.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/complete.h"
#include "cli/conversation.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "infer/grammar.h"
#include "infer/model.h"

namespace hadal {
namespace {

struct Options : RunOptions {
  std::string model, adapter, system, thinking;
  TextOptions text;
  std::vector<int32_t> prompt_ids;
  int64_t max_tokens = 512, logprobs = -1;
  bool raw = false, ids = false, json = false;
  std::string schema_file, grammar_file, regex;
};

std::optional<ReplyForm> form_of(const Options& options) {
  using Kind = ReplyForm::Kind;
  if (!options.schema_file.empty()) return ReplyForm{Kind::json_schema, read_text({{}, options.schema_file})};
  if (!options.grammar_file.empty()) return ReplyForm{Kind::ebnf, read_text({{}, options.grammar_file})};
  if (!options.regex.empty()) return ReplyForm{Kind::regex, options.regex};
  return {};
}

CompletionRequest request_for(const Options& options, const ModelSource& source, const ModelConfig& config, const Tokenizer& tokenizer) {
  CompletionRequest request;
  request.sampling = sampling_for(options.sampling, source.path());
  request.sampling.check(config.vocab);
  request.max_tokens = options.max_tokens;
  request.logprobs = options.logprobs;
  request.end_tokens = end_tokens(config, tokenizer);
  request.stops = options.sampling.stop;
  const std::optional<ChatTemplate> chat = options.raw || !options.prompt_ids.empty() ? std::nullopt : source.chat_template();
  request.separate_reasoning = chat.has_value();
  if (!options.prompt_ids.empty()) {
    request.prompt = {options.prompt_ids};
    return request;
  }
  const std::string text = without_last_newline(read_text(options.text));
  if (text.empty()) throw Error("the prompt is empty: give it with -p TEXT, -f FILE or on standard input");
  if (!chat) {
    request.prompt = raw_prompt(tokenizer, text);
    return request;
  }
  std::vector<Message> messages;
  if (!options.system.empty()) messages.push_back(said("system", options.system));
  messages.push_back(said("user", text));
  request.prompt = chat_prompt(tokenizer, *chat, messages, thinking_variables(options.thinking));
  return request;
}

std::string logprob_line(const Tokenizer& tokenizer, const Token& token) {
  std::string line = fmt::format("{:>7}  {:<20}", token.id, in_quotes(tokenizer.bytes(token.id)));
  for (size_t i = 0; i < token.logprobs.size(); ++i) {
    if (i > 0) line += (i == 1 ? "  of " : ", ") + in_quotes(tokenizer.bytes(token.logprobs[i].token));
    line += fmt::format(" {:.4f}", token.logprobs[i].logprob);
  }
  return line + "\n";
}

void print_json(const Completion& done, const CompletionRequest& request, const Tokenizer& tokenizer) {
  nlohmann::ordered_json json{
      {"text", done.answer}, {"reasoning", done.reasoning}, {"finish", done.finish}, {"seed", request.sampling.seed}};
  json["prompt_tokens"] = done.prompt_tokens;
  json["tokens"] = done.tokens.size();
  json["prompt_tokens_per_second"] = done.prompt_rate();
  if (done.tokens.size() > 1) json["tokens_per_second"] = done.reply_rate();
  json["drafted"] = done.drafts.drafted;
  json["accepted"] = done.drafts.accepted;
  json["ids"] = nlohmann::ordered_json::array();
  for (const Token& token : done.tokens) {
    json["ids"].push_back(token.id);
    if (request.logprobs < 0) continue;
    nlohmann::ordered_json entry;
    for (size_t i = 0; i < token.logprobs.size(); ++i) {
      const Logprob& l = token.logprobs[i];
      const nlohmann::ordered_json one{{"id", l.token}, {"piece", tokenizer.bytes(l.token)}, {"logprob", l.logprob}};
      if (i == 0) {
        entry = one;
        entry["top"] = nlohmann::ordered_json::array();
      } else {
        entry["top"].push_back(one);
      }
    }
    json["logprobs"].push_back(std::move(entry));
  }
  put(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void run(const Options& options) {
  const ModelSource source = open_model(options.model);
  const ModelConfig config = options.feeding.masked(source.config());
  const Tokenizer tokenizer = source.tokenizer();
  CompletionRequest request = request_for(options, source, config, tokenizer);
  Grammars grammars(tokenizer, config.vocab, request.end_tokens);
  if (const std::optional<ReplyForm> form = form_of(options)) request.grammar = grammars.compile(*form, request.prompt.starts_in_reasoning);
  Model model = load_model(source, config, options.weights, options.drafting);
  EngineOptions engine_options;
  engine_options.cache = options.feeding.cache_for(model);
  engine_options.max_rows = std::max(options.feeding.chunk, int64_t(1));
  engine_options.prompt_chunk = options.feeding.chunk;
  engine_options.drafting = options.drafting;
  // No more rows than this one reply can fill; a prompt beyond the context is left for the engine to refuse.
  engine_options.cache_rows = int64_t(request.prompt.tokens.size()) + options.max_tokens;
  if (!config.forgets()) engine_options.cache_rows = std::min(config.context, engine_options.cache_rows);
  keep_within(model, options.weights, engine_options.cache, engine_options.cache_rows, engine_options.max_rows);
  request.adapter = open_adapter(model, options.adapter);
  Engine engine(model, engine_options);

  InterruptGuard guard;
  ReplyPrinter printer;
  std::string separator;
  const Completion done = complete(engine, tokenizer, request, [&](const Token* token, std::span<const ReplyPiece> text) {
    if (options.json) return;
    if (!options.ids && options.logprobs < 0) return printer.show(text);
    if (token == nullptr) return;
    if (options.logprobs >= 0) {
      put(logprob_line(tokenizer, *token));
    } else {
      put(separator + std::to_string(token->id));
      separator = ",";
    }
    flush_output();
  });
  if (options.json) {
    print_json(done, request, tokenizer);
  } else {
    printer.finish();
    if (options.ids && options.logprobs < 0) put("\n");
  }
  flush_output();
  if (!options.json) note(figures(done));
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "generate", "complete one prompt", R"(  hadal generate smollm2 -p "What is the capital of France?"
  hadal generate path/to/model --raw -p "def fib(n):" --max-tokens 64 --temperature 0
  hadal generate model.gguf -f question.txt --json
  cat question.txt | hadal generate model.gguf --seed 7
  hadal generate smollm2 -p "Is the sky blue?" --regex "yes|no"
  hadal generate smollm2 -p "Invent a person." --json-schema person.schema.json

The prompt goes through the model's chat template, unless it has none or --raw says otherwise: then it is the beginning of a text that the
model continues. The reply is written to standard output as it comes, figures to standard error. Ctrl-C ends the reply.)");
  add_model(command, options->model);
  add_text(command, options->text);
  add_ids(command, "--prompt-ids", options->prompt_ids, "the prompt as token ids, given to the model as they are");
  command->add_option("--system", options->system, "a system message in front of the prompt")->type_name("TEXT");
  command->add_option("--thinking", options->thinking, "for models that reason when told to")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("on|off");
  command->add_flag("--raw", options->raw, "no chat template: the text itself, behind the begin token where the tokenizer wants one");
  command->add_option("--max-tokens", options->max_tokens, "longest reply")
      ->check(CLI::Range(int64_t(1), int64_t(1) << 31))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--logprobs", options->logprobs, "print each token with its log-probability and the N likeliest")
      ->check(CLI::Range(0, 1000))
      ->type_name("N");
  command->add_flag("--ids", options->ids, "print the reply as token ids");
  add_adapter(command, options->adapter);
  const auto add_form = [&](const char* name, std::string& to, const char* what, const char* type) {
    return command->add_option(name, to, what)->type_name(type)->group("The reply keeps to one of");
  };
  CLI::Option* schema = add_form("--json-schema", options->schema_file, "JSON that this schema describes", "FILE");
  CLI::Option* grammar = add_form("--grammar", options->grammar_file, "the rule `root` of this grammar (EBNF as in GBNF files)", "FILE");
  add_form("--regex", options->regex, "this regular expression, from beginning to end", "TEXT")->excludes(schema)->excludes(grammar);
  grammar->excludes(schema);
  add_run(command, *options);
  add_json(command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace hadal
