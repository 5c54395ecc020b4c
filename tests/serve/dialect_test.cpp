// What a reply looks like in each interface: reasoning, words and calls of tools, in pieces and whole.
#include "serve/dialect.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "serve/field.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

const Tokenizer& tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::from_folder(HADAL_SOURCE "/tests/golden/llama/model");
  return tokenizer;
}

Delta delta_of(const std::string& reasoning, const std::string& text, std::vector<ToolCallPiece> calls = {}, End end = End::none) {
  Delta delta;
  delta.reasoning = reasoning, delta.text = text, delta.tool_calls = std::move(calls), delta.end = end;
  return delta;
}

std::vector<Delta> pieces() {
  return {delta_of("Let ", ""),
          delta_of("me see.", "I "),
          delta_of("", "look."),
          delta_of("", "", {{0, "call_1", "weather", ""}}),
          delta_of("", "", {{0, "", "", R"({"city":)"}}),
          delta_of("", "", {{0, "", "", R"("Paris"})"}, {1, "call_2", "time", "{"}}),
          delta_of("", "", {{1, "", "", "}"}}),
          delta_of("", "", {}, End::tool_calls)};
}

Delta all() {
  return delta_of("Let me see.", "I look.", {{0, "call_1", "weather", R"({"city":"Paris"})"}, {1, "call_2", "time", "{}"}},
                  End::tool_calls);
}

constexpr Usage usage{.prompt = 10, .reply = 20, .reasoning = 5, .cached = 4};

std::unique_ptr<ReplyFormat> format_of(const Dialect& dialect, const Call& call = {}) {
  return dialect.format(call, {"m", 1700000000, tokenizer()});
}

struct Event {
  std::string name;
  Json data;
};

std::vector<Event> stream_of(ReplyFormat& format, const std::vector<Delta>& deltas) {
  std::string text = format.begin({.prompt = 10});
  for (const Delta& delta : deltas) text += format.delta(delta);
  text += format.end(usage);
  std::vector<Event> events;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find("\n\n", at);
    Event event;
    std::string one = text.substr(at, end - at);
    if (one.starts_with("event: ")) {
      event.name = one.substr(7, one.find('\n') - 7);
      one = one.substr(one.find('\n') + 1);
    }
    EXPECT_TRUE(one.starts_with("data: ")) << one;
    if (one != "data: [DONE]") event.data = Json::parse(one.substr(6));
    events.push_back(std::move(event));
    at = end + 2;
  }
  return events;
}

TEST(Dialects, ChatTellsCallsInPiecesAndWhole) {
  const auto format = format_of(openai_chat);
  Json message{{"role", ""}, {"content", ""}, {"reasoning_content", ""}, {"tool_calls", Json::array()}};
  std::string finish;
  for (const Event& event : stream_of(*format, pieces())) {
    if (event.data.is_null()) continue;
    const Json& choice = event.data["choices"][0];
    const Json& delta = choice["delta"];
    for (const char* key : {"role", "content", "reasoning_content"})
      if (delta.contains(key)) message[key] = message[key].get<std::string>() + delta[key].get<std::string>();
    for (const Json& call : delta.value("tool_calls", Json::array())) {
      const size_t index = call["index"];
      if (index == message["tool_calls"].size()) {
        message["tool_calls"].push_back({{"id", call["id"]}, {"type", call["type"]}, {"function", call["function"]}});
      } else {
        EXPECT_FALSE(call.contains("id")) << "only a call's first piece names it";
        std::string& arguments = message["tool_calls"][index]["function"]["arguments"].get_ref<std::string&>();
        arguments += call["function"]["arguments"].get<std::string>();
      }
    }
    if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
  }
  EXPECT_EQ(finish, "tool_calls");
  const Json whole = Json::parse(format_of(openai_chat)->whole({all()}, usage));
  const Json& said = whole["choices"][0]["message"];
  for (const auto& [key, value] : message.items()) EXPECT_EQ(said[key], value) << key;
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(whole["usage"]["completion_tokens_details"]["reasoning_tokens"], 5);
  EXPECT_EQ(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
}

TEST(Dialects, AChatThatOnlyCallsHasNoContent) {
  Delta said = all();
  said.text.clear();
  EXPECT_TRUE(Json::parse(format_of(openai_chat)->whole({said}, usage))["choices"][0]["message"]["content"].is_null());
}

TEST(Dialects, AnthropicsBlocksOpenAndCloseInOrder) {
  const auto format = format_of(anthropic_messages);
  Json content = Json::array(), ending;
  std::vector<std::string> inputs;
  int64_t open = -1;
  for (const Event& event : stream_of(*format, pieces())) {
    EXPECT_EQ(event.data["type"], event.name);
    if (event.name == "content_block_start") {
      EXPECT_EQ(open, -1) << "one at a time";
      open = event.data["index"];
      EXPECT_EQ(open, int64_t(content.size()));
      content.push_back(event.data["content_block"]);
      inputs.emplace_back();
    } else if (event.name == "content_block_delta") {
      EXPECT_EQ(event.data["index"], open);
      const Json& delta = event.data["delta"];
      if (delta["type"] == "input_json_delta") {
        inputs.back() += delta["partial_json"].get<std::string>();
      } else {
        const std::string key = delta["type"] == "text_delta" ? "text" : "thinking";
        content.back()[key] = content.back()[key].get<std::string>() + delta[key].get<std::string>();
      }
    } else if (event.name == "content_block_stop") {
      EXPECT_EQ(event.data["index"], open);
      open = -1;
      if (content.back()["type"] == "tool_use") content.back()["input"] = Json::parse(inputs.back());
    } else if (event.name == "message_delta") {
      ending = event.data;
    }
  }
  const Json whole = Json::parse(format_of(anthropic_messages)->whole({all()}, usage));
  EXPECT_EQ(content, whole["content"]);
  EXPECT_EQ(content.size(), 4u);
  EXPECT_EQ(content[2], (Json{{"type", "tool_use"}, {"id", "call_1"}, {"name", "weather"}, {"input", {{"city", "Paris"}}}}));
  EXPECT_EQ(ending["delta"]["stop_reason"], "tool_use");
  EXPECT_EQ(whole["stop_reason"], "tool_use");
  EXPECT_EQ(ending["usage"], whole["usage"]);
  EXPECT_EQ(whole["usage"]["input_tokens"].get<int>() + whole["usage"]["cache_read_input_tokens"].get<int>(), 10);
}

TEST(Dialects, AnthropicsInputIsAnObjectEvenWhereTheModelWasCutOff) {
  Delta said = all();
  said.tool_calls[0].arguments = R"({"city": "Par)";
  said.end = End::length;
  const Json whole = Json::parse(format_of(anthropic_messages)->whole({said}, usage));
  EXPECT_EQ(whole["content"][2]["input"], Json::object());
  EXPECT_EQ(whole["stop_reason"], "max_tokens");
}

TEST(Dialects, ResponsesHaveAnItemForEachCall) {
  const std::vector<Event> events = stream_of(*format_of(openai_responses), pieces());
  Json items = Json::array();
  std::vector<std::string> pieces_of;
  int64_t sequence = 0;
  for (const Event& event : events) {
    EXPECT_EQ(event.data["type"], event.name);
    EXPECT_EQ(event.data["sequence_number"], sequence++);
    if (event.name == "response.output_item.added") pieces_of.emplace_back();
    if (event.name.ends_with(".delta")) {
      EXPECT_EQ(event.data["output_index"], pieces_of.size() - 1);
      pieces_of.back() += event.data["delta"].get<std::string>();
    }
    if (event.name == "response.output_item.done") items.push_back(event.data["item"]);
  }
  EXPECT_EQ(events.back().name, "response.completed");
  EXPECT_EQ(events.back().data["response"]["output"], items);
  EXPECT_EQ(pieces_of, (std::vector<std::string>{"Let me see.", "I look.", R"({"city":"Paris"})", "{}"}));
  Json whole = Json::parse(format_of(openai_responses)->whole({all()}, usage));
  ASSERT_EQ(whole["output"].size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].erase("id"), whole["output"][i].erase("id");
    EXPECT_EQ(whole["output"][i], items[i]);
  }
  EXPECT_EQ(items[2], (Json{{"type", "function_call"},
                            {"status", "completed"},
                            {"call_id", "call_1"},
                            {"name", "weather"},
                            {"arguments", R"({"city":"Paris"})"}}));
}

TEST(Dialects, ResponsesTellTheirSettingsBack) {
  const Call call = openai_responses.parse(
      R"({"input": "x", "max_output_tokens": 9, "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
          "tool_choice": {"type": "function", "name": "f"}, "text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}}})",
      {});
  const Json chat = Json::parse(call.tools);
  EXPECT_EQ(chat[0]["function"]["name"], "f") << "as chat has it";
  EXPECT_EQ(Json::parse(call.response_format)["json_schema"]["schema"], (Json{{"a", 1}}));
  const Json whole = Json::parse(format_of(openai_responses, call)->whole({all()}, usage));
  EXPECT_EQ(whole["tools"][0]["name"], "f");
  EXPECT_EQ(whole["tool_choice"], (Json{{"type", "function"}, {"name", "f"}}));
  EXPECT_EQ(whole["text"]["format"]["name"], "n");
  EXPECT_EQ(whole["max_output_tokens"], 9);
}

TEST(Dialects, EmptyRepliesAreWhole) {
  const Delta nothing = delta_of("", "", {}, End::stop);
  EXPECT_EQ(Json::parse(format_of(openai_chat)->whole({nothing}, usage))["choices"][0]["message"]["content"], "");
  EXPECT_EQ(Json::parse(format_of(anthropic_messages)->whole({nothing}, usage))["content"], Json::array());
  EXPECT_EQ(Json::parse(format_of(openai_responses)->whole({nothing}, usage))["output"][0]["content"][0]["text"], "");
  EXPECT_EQ(stream_of(*format_of(openai_responses), {nothing}).back().data["response"]["status"], "completed");
  EXPECT_EQ(stream_of(*format_of(anthropic_messages), {nothing}).back().name, "message_stop");
}

TEST(Fields, NameTheirPlace) {
  const auto message_of = [](const auto& read) {
    try {
      read(Field::of_body(R"({"a": [{"b": 3.5}, null], "n": null, "t": "x", "long": [1, 2, -1]})"));
    } catch (const ApiError& error) {
      return std::string(error.what()) + " @ " + error.parameter;
    }
    return std::string("nothing");
  };
  EXPECT_EQ(message_of([](const Field& f) { f["a"].items()[0]["b"].integer(0, 9); }),
            "a[0].b: expected an integer from 0 to 9, found 3.5 @ a[0].b");
  EXPECT_EQ(message_of([](const Field& f) { f["a"].items()[1].text(); }), "a[1]: expected a string, found nothing @ a[1]");
  EXPECT_EQ(message_of([](const Field& f) { f["t"]["deep"]["er"].text(); }), "t.deep.er: expected a string, found nothing @ t.deep.er");
  EXPECT_EQ(message_of([](const Field& f) { f["long"].tokens(); }), "long[2]: expected a token id, found -1 @ long[2]");
  EXPECT_EQ(message_of([](const Field& f) { f["n"].number(0, 1); }), "n: expected a number from 0 to 1, found nothing @ n");
  float value = 7;
  Field::of_body(R"({"n": null})")["n"].read(value, 0, 1);
  EXPECT_EQ(value, 7) << "null counts as absent";
}

}  // namespace
}  // namespace hadal
