// POST /v1/completions.
#include <nlohmann/json.hpp>

#include "serve/openai.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

void read_prompts(const Field& prompt, std::vector<TextOrTokens>& prompts) {
  const char* expected = "a string, token ids, or a list of up to 256 of either";
  const auto add = [&](const Field& one) {
    if (one.is_text())
      prompts.emplace_back(one.text());
    else if (one.is_list())
      prompts.emplace_back(one.tokens());
    else
      prompt.fail(expected);
  };
  if (!prompt.is_list()) return add(prompt);
  if (prompt.size() == 0) prompt.fail(expected);
  if (prompt.first().is_token()) return add(prompt);
  if (prompt.size() > 256) prompt.fail(expected);
  for (const Field& one : prompt.items()) add(one);
}

Call parse(const std::string& text, const Sampling& defaults) {
  const Field body = Field::of_body(text);
  Call call;
  read_completion(body, defaults, call);
  if (!body["max_tokens"]) call.max_tokens = 16;  // as the original has it
  body["logprobs"].read(call.logprobs, 0, 20);
  body["echo"].read(call.echo);
  if (body["suffix"]) throw ApiError(400, "suffix: suffixes are not supported", "suffix", "unsupported_parameter");
  read_prompts(body["prompt"], call.prompts);
  return call;
}

class Format : public ReplyFormat {
 public:
  Format(const Call& call, ReplyContext context) : context_(std::move(context)), id_(new_id("cmpl-")), include_usage_(call.include_usage) {}

  std::string progress(int64_t read, const Usage& usage) override {
    Json json = head();
    json["choices"] = Json::array();
    json["prompt_progress"] = {{"total", usage.prompt}, {"cache", usage.cached}, {"processed", read}};
    return sse(json);
  }

  std::string delta(const Delta& delta) override {
    Json json = head();
    json["choices"] = Json::array({choice_json(delta)});
    if (include_usage_) json["usage"] = nullptr;
    return sse(json);
  }

  std::string end(const Usage& usage) override {
    std::string events;
    if (include_usage_) {
      Json json = head();
      json["choices"] = Json::array();
      json["usage"] = usage_json(usage);
      events = sse(json);
    }
    return events + "data: [DONE]\n\n";
  }

  std::string whole(const std::vector<Delta>& choices, const Usage& usage) override {
    Json json = head();
    json["choices"] = Json::array();
    for (const Delta& said : choices) json["choices"].push_back(choice_json(said));
    json["usage"] = usage_json(usage);
    return to_text(json);
  }

 private:
  Json head() const { return {{"id", id_}, {"object", "text_completion"}, {"created", context_.created}, {"model", context_.model}}; }

  Json choice_json(const Delta& delta) const {
    Json choice{{"index", delta.choice}, {"text", delta.text}, {"logprobs", logprobs_json(delta)}, {"finish_reason", nullptr}};
    if (const char* finish = openai_finish(delta.end)) choice["finish_reason"] = finish;
    return choice;
  }

  static Json usage_json(const Usage& usage) {
    return {{"prompt_tokens", usage.prompt}, {"completion_tokens", usage.reply}, {"total_tokens", usage.prompt + usage.reply}};
  }

  Json logprobs_json(const Delta& delta) const {
    if (delta.logprobs.empty()) return nullptr;
    Json out{{"tokens", Json::array()}, {"token_logprobs", Json::array()}, {"top_logprobs", Json::array()}};
    for (const std::vector<Logprob>& of : delta.logprobs) {
      out["tokens"].push_back(context_.tokenizer.bytes(of[0].token));
      out["token_logprobs"].push_back(of[0].logprob);
      Json top = Json::object();
      for (size_t i = 1; i < of.size(); ++i) top[std::string(context_.tokenizer.bytes(of[i].token))] = of[i].logprob;
      out["top_logprobs"].push_back(std::move(top));
    }
    return out;
  }

  const ReplyContext context_;
  const std::string id_;
  const bool include_usage_;
};

std::unique_ptr<ReplyFormat> format(const Call& call, ReplyContext context) { return std::make_unique<Format>(call, std::move(context)); }

}  // namespace

const Dialect openai_text{false, parse, format};

}  // namespace hadal
