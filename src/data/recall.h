// Something told long ago: among random digits stand letters, each with some digits behind it; a letter is asked for, and what followed it
// is the answer. With hadal's tokenizers every digit and letter is a token, so distances are counted in tokens.
// Source of the idea: associative recall (Arora et al. 2023, "Zoology"), and the passkey of Mohtashami and Jaggi (2023).
#pragma once
#include <memory>

#include "data/source.h"

namespace hadal {

// types: one, "LETTERS DISTANCE" or "LETTERS DISTANCE DIGITS": so many letters (1 to 26) with so many digits (8), the one asked for first
// so many tokens before the question. questions: so many letters are asked for, one after another. splits: train, test.
std::unique_ptr<Source> open_recall(const SourceConfig& config);

}  // namespace hadal
