#include "cli/conversation.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace hadal {

Message said(const std::string& role, const std::string& content, const std::string& reasoning) {
  Message message;
  message.role = role;
  message.content = content;
  message.reasoning = reasoning;
  return message;
}

std::vector<Message> Conversation::all() const {
  std::vector<Message> out;
  if (!system.empty()) out.push_back(said("system", system));
  out.insert(out.end(), messages.begin(), messages.end());
  return out;
}

void Conversation::ask(const std::string& text) {
  if (!messages.empty() && messages.back().role == "user") messages.pop_back();
  messages.push_back(said("user", text));
}

bool Conversation::take_back_answer() {
  if (!messages.empty() && messages.back().role == "assistant") messages.pop_back();
  return !messages.empty();
}

void save_conversation(const Conversation& conversation, const std::filesystem::path& path) {
  nlohmann::ordered_json json{{"messages", nlohmann::ordered_json::array()}};
  for (const Message& message : conversation.all()) {
    nlohmann::ordered_json entry{{"role", message.role}, {"content", message.content}};
    if (!message.reasoning.empty()) entry["reasoning_content"] = message.reasoning;
    json["messages"].push_back(std::move(entry));
  }
  if (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path))
    throw Error("cannot write {}: expected a regular file", path.string());
  write_atomically(path, [&](std::ostream& out) { out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n'; });
}

Conversation load_conversation(const std::filesystem::path& path) {
  const nlohmann::json json = nlohmann::json::parse(read_text(path, size_t(64) << 20), nullptr, false);
  const auto fail = [&](const std::string& found) -> Error {
    return Error("{}: expected {{\"messages\": [{{\"role\": \"user\", \"content\": \"...\"}}, ...]}}, found {}", path.string(), found);
  };
  if (json.is_discarded()) throw fail("no JSON");
  if (!json.is_object() || !json.contains("messages") || !json["messages"].is_array()) throw fail("no list of messages");
  Conversation conversation;
  for (const nlohmann::json& entry : json["messages"]) {
    const auto text = [&](const char* key) {
      const auto at = entry.is_object() ? entry.find(key) : entry.end();
      if (!entry.is_object() || at == entry.end() || !at->is_string()) throw fail(fmt::format("a message without {} as text", key));
      return at->get<std::string>();
    };
    const std::string role = text("role");
    Message message = said(role, text("content"));
    if (entry.contains("reasoning_content")) message.reasoning = text("reasoning_content");
    if (message.role == "system") {
      if (!conversation.system.empty() || !conversation.messages.empty()) throw fail("a system message that is not the first");
      conversation.system = message.content;
    } else if (message.role == (conversation.messages.size() % 2 == 0 ? "user" : "assistant")) {
      conversation.messages.push_back(std::move(message));
    } else {
      throw fail(fmt::format("the role \"{}\" where user and assistant take turns", message.role));
    }
  }
  return conversation;
}

}  // namespace hadal
