// POST /v1/completions.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "serve/openai.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

Call parse(const std::string& text, const Sampling& defaults) {
  const Field body = Field::of_body(text);
  Call call;
  body["echo"].read(call.echo);
  read_completion(body, defaults, call);
  read_forms(body, call);
  if (!body["max_tokens"]) call.max_tokens = 16;  // as the original has it
  call.prompt_only = call.max_tokens == 0;
  body["logprobs"].read(call.logprobs, 0, 20);
  if (body["suffix"]) throw ApiError(400, "suffix: suffixes are not supported", "suffix", "unsupported_parameter");
  call.prompts = read_prompts(body["prompt"], 256);
  return call;
}

class Format : public ReplyFormat {
 public:
  Format(const Call& call, ReplyContext context)
      : context_(std::move(context)), id_(new_id("cmpl-")), include_usage_(call.include_usage), progress_(call.return_progress) {}

  std::string progress(int64_t read, const Usage& usage) override {
    if (!progress_) return "";
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

  Json choice_json(const Delta& delta) {
    Json choice{{"index", delta.choice}, {"text", delta.text}, {"logprobs", logprobs_of(delta)}, {"finish_reason", nullptr}};
    if (const char* finish = openai_finish(delta.end)) choice["finish_reason"] = finish;
    return choice;
  }

  static Json usage_json(const Usage& usage) {
    return {{"prompt_tokens", usage.prompt}, {"completion_tokens", usage.reply}, {"total_tokens", usage.prompt + usage.reply}};
  }

  Json logprobs_of(const Delta& delta) {
    if (delta.logprobs.empty()) return nullptr;
    Json tokens = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
    for (const std::vector<Logprob>& of : delta.logprobs) {
      const std::string_view bytes = context_.tokenizer.bytes(of[0].token);
      tokens.push_back(bytes);
      values.push_back(of[0].logprob);  // NaN becomes null
      Json top = Json::object();
      for (size_t i = 1; i < of.size(); ++i) top[std::string(context_.tokenizer.bytes(of[i].token))] = of[i].logprob;
      tops.push_back(std::isnan(of[0].logprob) ? Json() : std::move(top));
      int64_t& offset = offsets_[delta.choice];
      offsets.push_back(offset);
      offset += std::count_if(bytes.begin(), bytes.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
    }
    return {{"tokens", std::move(tokens)},
            {"token_logprobs", std::move(values)},
            {"top_logprobs", std::move(tops)},
            {"text_offset", std::move(offsets)}};
  }

  const ReplyContext context_;
  const std::string id_;
  const bool include_usage_, progress_;
  std::map<int64_t, int64_t> offsets_;  // of each choice's next token, in characters
};

std::unique_ptr<ReplyFormat> format(const Call& call, ReplyContext context) { return std::make_unique<Format>(call, std::move(context)); }

}  // namespace

const Dialect openai_text{false, parse, format, openai_error};

}  // namespace hadal
