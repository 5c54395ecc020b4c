// What OpenAI's interfaces share. Source: OpenAI API reference; further fields as vLLM has them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "serve/dialect.h"
#include "serve/field.h"

namespace hadal {

std::string openai_error(const ApiError& error);

void read_limits(const Field& body, Call& call);  // timeout, priority: what any interface may have beside its own
void read_sampling(const Field& body, const Sampling& defaults, Call& call);    // and model, stops, stream: what all have
void read_completion(const Field& body, const Sampling& defaults, Call& call);  // what both ways of completing have
void read_effort(const Field& effort, Call& call);                              // of reasoning
std::vector<TextOrTokens> read_prompts(const Field& prompt, size_t most);
void read_forms(const Field& body, Call& call);         // response_format and guided_*
std::vector<Message> read_messages(const Field& body);  // of {"messages": [...]}
std::string read_content(const Field& content);         // a string, or parts of which all are text
const char* openai_finish(End end);                     // null: it goes on
std::string logprobs_json(const std::vector<std::vector<Logprob>>& logprobs, const Tokenizer& tokenizer);  // an array

struct TokenizeCall {
  std::string text;  // "content", or "prompt" as vLLM has it
  bool add_special_tokens = true;
};
TokenizeCall parse_tokenize_call(const std::string& body);
std::vector<int32_t> parse_tokens(const std::string& body);  // of {"tokens": [...]}

struct EmbeddingCall {
  std::string model;
  std::vector<TextOrTokens> inputs;
  bool base64 = false;
  int64_t dimensions = 0;  // 0: all
  double timeout = 0;      // as Call's
};
EmbeddingCall parse_embedding_call(const std::string& body);

struct AdapterCall {  // as vLLM has it
  std::string name, path;
};
AdapterCall parse_adapter_call(const std::string& body);

std::vector<std::string> names_in(const std::string& body);  // of the model, and of adapters to be changed; none: nothing to be read

struct ModelEntry {
  std::string id;
  int64_t created, context;
  std::string parent;  // of an adapter: its model; empty: it is a model itself
};
std::string model_json(const ModelEntry& model);
std::string models_json(const std::vector<ModelEntry>& models);

}  // namespace hadal
