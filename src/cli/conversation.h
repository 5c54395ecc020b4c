// What was said in a chat, and its file: {"messages": [{"role": "user", "content": "..."}, ...]}, as the OpenAI interface has it.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "model/chat_template.h"

namespace hadal {

Message said(const std::string& role, const std::string& content, const std::string& reasoning = "");

struct Conversation {
  std::string system;             // empty: none
  std::vector<Message> messages;  // user and assistant by turns

  std::vector<Message> all() const;   // the system message first
  void ask(const std::string& text);  // an earlier question without an answer is forgotten
  bool take_back_answer();            // so that the last question can be answered anew; false: nothing was asked
};

void save_conversation(const Conversation& conversation, const std::filesystem::path& path);
Conversation load_conversation(const std::filesystem::path& path);  // Error names the file and what is wrong in it

}  // namespace hadal
