// What tokenizer.json and GGUF say about a tokenizer, in one form. Internal to the tokenizer's own files.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/added_tokens.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"

namespace hadal {

inline constexpr int64_t most_tokens = 1 << 22;  // ids from a file are below this; the largest published vocabulary has 2^18

struct TokenizerParts {
  std::vector<std::string> written;  // by id, in the alphabet of bytes; empty for an id without a string
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  std::vector<std::string> merge_texts;  // what the views of `merges` point to, where it is not in the file's own memory
  bool ignore_merges = false;            // a piece that is a token becomes it without merging
  std::vector<AddedToken> added;
  bool nfc = false;
  std::vector<SplitStage> stages;
  std::optional<size_t> prepend_space_before;  // this stage, to each piece that does not start with one (stages.size(): before BPE)
  bool adds_begin = false;
  std::optional<int32_t> begin, end;
};

// "a b" into its two pieces. Error names `where` and the merge's number.
std::pair<std::string_view, std::string_view> split_merge(std::string_view text, size_t number, const std::string& where);

}  // namespace hadal
