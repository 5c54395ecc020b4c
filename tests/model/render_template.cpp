// Renders what standard input asks for, so that other implementations can be compared: {"template", "messages", "tools", "extra",
// "add_generation_prompt", "bos_token", "eos_token"} in, the text out. With "jobs": [..] one JSON line per job: {"text"} or {"error"}.
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/chat_template.h"

using nlohmann::ordered_json;

namespace {

std::string render(const ordered_json& job) {
  const auto text = [](const ordered_json& object, const char* key) { return object.value(key, std::string()); };
  const auto json = [](const ordered_json& object, const char* key) { return object.contains(key) ? object[key].dump() : std::string(); };
  std::vector<hadal::Message> messages;
  for (const auto& m : job.value("messages", ordered_json::array())) {
    messages.push_back({text(m, "role"), m.contains("content") && m["content"].is_null() ? "" : text(m, "content"),
                        text(m, "reasoning_content"), json(m, "tool_calls"), text(m, "name"), text(m, "tool_call_id")});
  }
  const hadal::RenderOptions options{job.value("add_generation_prompt", true), json(job, "tools"), json(job, "extra"),
                                     text(job, "bos_token"), text(job, "eos_token")};
  const auto chat = job.contains("built_in") ? hadal::ChatTemplate::built_in(text(job, "built_in"))
                                             : hadal::ChatTemplate::parse(text(job, "template"), "template");
  return chat.render(messages, options);
}

}  // namespace

int main() {
  const ordered_json input = ordered_json::parse(std::cin);
  if (!input.contains("jobs")) {
    std::cout << render(input);
    return 0;
  }
  for (const auto& job : input["jobs"]) {
    ordered_json answer;
    try {
      answer["text"] = render(job);
    } catch (const hadal::Error& e) {
      answer["error"] = e.what();
    }
    std::cout << answer.dump() << "\n";
  }
}
