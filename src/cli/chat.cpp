// hadal chat: a talk in the terminal.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>

#include "cli/commands.h"
#include "cli/complete.h"
#include "cli/conversation.h"
#include "cli/line_editor.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"
#include "infer/model.h"
#include "model/presets.h"

namespace hadal {
namespace {

struct Options : RunOptions {
  std::string model = "smollm2", adapter, system, thinking;
  int64_t max_tokens = 4096, context = 0;
};

ChatTemplate template_of(const ModelSource& source) {
  std::optional<ChatTemplate> chat = source.chat_template();
  if (!chat)
    throw Error("{} has no chat template: it is a base model, which continues texts; `hadal generate {} -p TEXT` does that",
                source.path().string(), source.path().string());
  return std::move(*chat);
}

EngineOptions engine_options(const Options& options, const Model& model) {
  EngineOptions out;
  out.cache = options.feeding.cache_for(model);
  out.cache_rows = std::min(options.context, model.config.context);
  out.max_rows = out.prompt_chunk = options.feeding.chunk;
  out.drafting = options.drafting;
  return out;
}

class Chat {
 public:
  explicit Chat(const Options& options)
      : options_(options),
        source_(open_model(options.model)),
        template_(template_of(source_)),
        tokenizer_(source_.tokenizer()),
        sampling_(sampling_for(options.sampling, source_.path())),
        model_(load(source_, sampling_, options)),
        adapter_(open_adapter(model_, options.adapter)),
        engine_(model_, engine_options(options, model_)),
        editor_(cache_folder() / "chat_history") {
    conversation_.system = options.system;
  }

  void run() {
    InterruptGuard guard;
    if (editor_.interactive()) greet();
    bool warned = false;
    for (std::string line;;) {
      const LineEditor::Event event = editor_.read(line);
      forget_interrupt();
      if (event == LineEditor::Event::end) break;
      if (event == LineEditor::Event::interrupted) {
        put("\n");
        if (!editor_.interactive()) break;
        if (!warned) note("Ctrl-D leaves.");
        warned = true;
        continue;
      }
      try {
        if (!handle(line)) return;
      } catch (const Error& error) {  // the talk goes on
        note(fmt::format("error: {}", error.what()));
      }
      forget_interrupt();
    }
    if (editor_.interactive()) put("\n");
  }

 private:
  static Model load(const ModelSource& source, const Sampling& sampling, const Options& options) {
    const ModelConfig config = options.feeding.masked(source.config());
    sampling.check(config.vocab);
    Model model = load_model(source, config, options.weights, options.drafting);
    const EngineOptions engine = engine_options(options, model);
    keep_within(model, options.weights, engine.cache, engine.cache_rows, engine.max_rows);
    return model;
  }

  int64_t room() const { return std::min(engine_.cache_rows(), model_.config.context); }

  void greet() {
    const Style style = output_style();
    put(fmt::format("{}{}{}  {} parameters, context of {} tokens\n", style.bold, options_.model, style.plain,
                    with_commas(count_parameters(model_.config).total), with_commas(room())));
    put(fmt::format("{}/help lists the commands, Ctrl-C stops a reply, Ctrl-D leaves.{}\n\n", style.dim, style.plain));
    flush_output();
  }

  // False: the program ends.
  bool handle(const std::string& line) {
    const size_t start = line.find_first_not_of(" \t\n");
    if (start == line.npos) return true;
    if (line[start] != '/') {
      conversation_.ask(line);
      reply();
      return true;
    }
    const size_t space = line.find_first_of(" \t\n", start);
    const std::string name = line.substr(start, space - start);
    const size_t rest = space == line.npos ? space : line.find_first_not_of(" \t\n", space);
    std::string argument = rest == line.npos ? "" : line.substr(rest);
    argument.erase(argument.find_last_not_of(" \t\n") + 1);
    if (name == "/exit" || name == "/quit") return false;
    command(name, argument);
    return true;
  }

  void command(const std::string& name, const std::string& argument) {
    if (name == "/help") return help();
    if (name == "/system") return system(argument);
    if (name == "/reset") return reset();
    if (name == "/retry") return retry();
    if (name == "/save") return save(argument);
    if (name == "/load") return load_talk(argument);
    if (name == "/stats") return stats();
    note(fmt::format("There is no command {}: /help lists them.", name));
  }

  void help() {
    put("/system TEXT  what the model is told before the talk; without TEXT: shows it; - removes it\n"
        "/reset        forgets the talk, keeps the system message\n"
        "/retry        answers the last message anew; where temperature is 0, this once with 0.8\n"
        "/save FILE    writes the talk as JSON\n"
        "/load FILE    goes on with a saved talk\n"
        "/stats        speed of the last reply, use of the context\n"
        "/exit         leaves, as Ctrl-D does\n"
        "A line that ends with \\ goes on in the next one. Ctrl-C stops a reply.\n"
        "Up and down walk through what you typed, Ctrl-R searches it.\n");
  }

  void system(const std::string& text) {
    if (text.empty())
      return note(conversation_.system.empty() ? "No system message: the template's own, if it has one." : conversation_.system);
    conversation_.system = text == "-" ? "" : text;
    note(text == "-" ? "System message removed." : "System message set; it counts from the next reply on.");
  }

  void reset() {
    conversation_.messages.clear();
    note("The talk starts anew.");
  }

  void retry() {
    if (!conversation_.take_back_answer()) return note("There is nothing to answer yet.");
    reply(true);
  }

  void save(const std::string& file) {
    if (file.empty()) return note("/save needs the name of a file.");
    save_conversation(conversation_, file);
    note(fmt::format("Saved {} messages to {}.", conversation_.all().size(), file));
  }

  void load_talk(const std::string& file) {
    if (file.empty()) return note("/load needs the name of a file.");
    conversation_ = load_conversation(file);
    note(fmt::format("Loaded {} messages from {}.", conversation_.all().size(), file));
  }

  void stats() {
    if (last_.prompt_tokens == 0) return note("No reply yet.");
    note(figures(last_));
    const int64_t used = std::min(room(), last_.prompt_tokens + int64_t(last_.tokens.size()));
    note(fmt::format("context: {} of {} tokens, {} %", with_commas(used), with_commas(room()), 100 * used / room()));
  }

  // The system message and what the template puts around it: never forgotten.
  int64_t tokens_before_the_talk(const Prompt& prompt, const std::string& variables) const {
    Conversation empty;
    empty.system = conversation_.system;
    empty.ask("");
    const std::vector<int32_t> other = chat_prompt(tokenizer_, template_, empty.all(), variables).tokens;
    return std::ranges::mismatch(prompt.tokens, other).in1 - prompt.tokens.begin();
  }

  // Answers the last question. Each turn gives the engine the whole talk; a cache of prefixes belongs to the engine.
  void reply(bool anew = false) {
    CompletionRequest request;
    const std::string variables = thinking_variables(options_.thinking);
    request.prompt = chat_prompt(tokenizer_, template_, conversation_.all(), variables);
    const int64_t tokens = int64_t(request.prompt.tokens.size());
    request.keep = tokens_before_the_talk(request.prompt, variables);
    const bool shifts = engine_.can_shift(request.keep);
    if (tokens >= room() && !shifts) {
      note(fmt::format("The context is full: the talk takes {} tokens of {}. /reset starts anew; /save FILE keeps the talk first.",
                       with_commas(tokens), with_commas(room())));
      return;
    }
    request.sampling = sampling_;
    request.sampling.seed += replies_++;  // another try is another text; the whole talk still depends on the first seed alone
    if (anew && sampling_.temperature == 0) request.sampling.temperature = 0.8f;  // or the answer would be the same
    request.max_tokens = options_.max_tokens > 0 ? options_.max_tokens : room();
    request.end_tokens = end_tokens(model_.config, tokenizer_);
    request.stops = options_.sampling.stop;
    request.adapter = adapter_;
    ReplyPrinter printer;
    last_ = complete(engine_, tokenizer_, request, [&](const Token*, std::span<const ReplyPiece> text) { printer.show(text); });
    printer.finish();
    if (!last_.answer.empty() || !last_.reasoning.empty())
      conversation_.messages.push_back(said("assistant", last_.answer, last_.reasoning));
    if (std::string_view(last_.finish) == "interrupted") note("(stopped)");
    const bool full = tokens + int64_t(last_.tokens.size()) >= room();
    if (full && shifts)
      note(fmt::format("(the context of {} tokens is full: the oldest part of the talk is forgotten)", with_commas(room())));
    else if (std::string_view(last_.finish) == "length") {
      note(full ? fmt::format("(cut: the context of {} tokens is full; /reset starts anew)", with_commas(room()))
                : fmt::format("(cut after --max-tokens {})", options_.max_tokens));
    }
    if (editor_.interactive()) put("\n");
  }

  const Options& options_;
  ModelSource source_;
  ChatTemplate template_;
  Tokenizer tokenizer_;
  Sampling sampling_;
  Model model_;
  std::shared_ptr<const Adapter> adapter_;
  Engine engine_;
  LineEditor editor_;
  Conversation conversation_;
  Completion last_;
  uint64_t replies_ = 0;
};

}  // namespace

void add_chat(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, "chat", "talk in the terminal", R"(  hadal chat
  hadal chat path/to/model --temperature 0.6 --system "Answer in one sentence."
  printf 'Hello!\nAnd now in French.\n' | hadal chat smollm2

Inside: /help /system /reset /retry /save /load /stats /exit. Ctrl-C stops a reply, Ctrl-D leaves.
When the context is full, the oldest part of the talk is forgotten, never the system message. Reasoning is shown dimmed.
What you type is kept in chat_history in the cache folder (see `hadal models`).)");
  add_model(command, options->model)->required(false)->capture_default_str();
  command->add_option("--system", options->system, "what the model is told before the talk")->type_name("TEXT");
  command->add_option("--thinking", options->thinking, "for models that reason when told to")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("on|off");
  command->add_option("--max-tokens", options->max_tokens, "longest reply; 0: as long as the context has room")
      ->check(CLI::Range(int64_t(0), int64_t(1) << 31))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--context", options->context, "tokens to remember; 0: as many as the model can, less where memory is short")
      ->check(CLI::Range(int64_t(0), int64_t(1) << 31))
      ->type_name("N")
      ->capture_default_str();
  add_adapter(command, options->adapter);
  add_run(command, *options);
  command->callback([options] { Chat(*options).run(); });
}

}  // namespace hadal
