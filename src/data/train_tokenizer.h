// A byte-level BPE tokenizer made for some data, as files that hadal and the `tokenizers` package read alike.
// Source: Sennrich et al. 2016; text is cut as GPT-2 does, and every digit is a token of its own, so that numbers can be computed with.
#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/source.h"

namespace hadal {

struct TokenizerOptions {
  int64_t vocab = 4096;              // at most, the 256 bytes and the control tokens among them: <begin> <end> <system> <user> <assistant>
  int64_t examples = 50'000;         // of each source, spread over all of it; of one that never ends the first
  int64_t bytes = int64_t(1) << 26;  // of text from each source
  std::function<void(int64_t pieces, int64_t all)> progress = {};
};

// tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`, which is made where it does not exist.
// Returns the size of the vocabulary: smaller than asked for where the text has no further pairs. Error: fewer than 261 tokens, no text.
int64_t train_tokenizer(std::span<const Source* const> sources, const std::filesystem::path& folder, const TokenizerOptions& options = {});

struct LearntMerge {
  int32_t left, right, made;  // numbers of pieces: 0 to 255 are the bytes, a merge makes the next, or one with the same bytes again
};
// The merges that shorten `words` (pieces of text and how often they come) the most, greedily, until there are `pieces` pieces.
// Of pairs that come equally often the one with smaller numbers is first.
std::vector<LearntMerge> learn_merges(const std::vector<std::pair<std::string, int64_t>>& words, int64_t pieces,
                                      const std::function<void(int64_t pieces, int64_t all)>& progress = {});

}  // namespace hadal
