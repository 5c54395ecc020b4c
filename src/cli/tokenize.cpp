// hadal tokenize, hadal detokenize: text to token ids and back.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "core/error.h"

namespace hadal {
namespace {

struct TokenizeOptions {
  std::string model;
  TextOptions text;
  bool pieces = false, as_text = false, begin = false, json = false;
};

void tokenize(const TokenizeOptions& options) {
  const Tokenizer tokenizer = open_model(options.model).tokenizer();
  const std::string text = read_text(options.text);
  std::vector<int32_t> ids = tokenizer.encode(text, options.as_text ? Tokenizer::Added::as_text : Tokenizer::Added::match);
  if (options.begin) {
    if (!tokenizer.begin_token()) throw Error("{}: the tokenizer has no begin token, so --begin cannot add it", options.model);
    ids.insert(ids.begin(), *tokenizer.begin_token());
  }
  if (options.json) {
    nlohmann::ordered_json json{{"ids", ids}};
    for (const int32_t id : ids)
      if (options.pieces) json["pieces"].push_back(tokenizer.bytes(id));
    return put(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  if (options.pieces) {
    for (const int32_t id : ids) put(fmt::format("{:>7}  {}\n", id, in_quotes(tokenizer.bytes(id))));
    return;
  }
  put(fmt::format("{}\n", fmt::join(ids, ",")));
}

struct DetokenizeOptions {
  std::string model;
  std::vector<int32_t> ids;
  bool json = false;
};

void detokenize(const DetokenizeOptions& options) {
  const Tokenizer tokenizer = open_model(options.model).tokenizer();
  for (const int32_t id : options.ids)
    if (id >= tokenizer.size()) throw Error("token id {} is out of range: expected 0 to {}", id, tokenizer.size() - 1);
  const std::string text = tokenizer.decode(options.ids);
  if (!options.json) return put(text + "\n");
  put(nlohmann::ordered_json{{"text", text}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = add_command(app, "tokenize", "text to token ids", R"(  hadal tokenize smollm2 -p "Hello, world"
  hadal tokenize path/to/model -f book.txt --json
  echo -n "DeepSeek" | hadal tokenize path/to/model --text)");
  add_model(command, options->model);
  add_text(command, options->text);
  command->add_flag("--text", options->pieces, "one token per line, with the text it stands for");
  command->add_flag("--begin", options->begin, "put the begin token in front");
  command->add_flag("--plain", options->as_text, "special tokens written out in the text are plain text");
  add_json(command, options->json);
  command->callback([options] { tokenize(*options); });
}

void add_detokenize(CLI::App& app) {
  auto options = std::make_shared<DetokenizeOptions>();
  CLI::App* command = add_command(app, "detokenize", "token ids to text", R"help(  hadal detokenize smollm2 --ids 19556,28,905
  hadal detokenize path/to/model --ids "$(hadal tokenize path/to/model -p 'there and back')")help");
  add_model(command, options->model);
  add_ids(command, "--ids", options->ids, "the token ids");
  command->get_option("--ids")->required();
  add_json(command, options->json);
  command->callback([options] { detokenize(*options); });
}

}  // namespace hadal
