// Anthropic's Messages interface. Source: Anthropic API reference, messages and streaming.
#pragma once
#include <cstdint>
#include <string>

#include "serve/dialect.h"

namespace hadal {

std::string anthropic_error(const ApiError& error);
std::string error_json(const std::string& path, const ApiError& error);  // in the shape of the interface that the path belongs to
Call parse_count_call(const std::string& body);  // of /v1/messages/count_tokens: a conversation, and nothing about its reply
std::string count_json(int64_t tokens);

}  // namespace hadal
