// What is put right in grammars as xgrammar 0.2.8 writes them, between its reading of a form and its compiling.
#pragma once
#include <string>

namespace hadal {

// Strings of limited length may hold control characters and no escapes there, and all may hold halves of surrogates, which are no UTF-8.
std::string with_json_characters(std::string text);

// Repetitions as blocks of repetitions: the same texts, but a mask within x{0,1000} takes as long as one within x{0,64}.
std::string with_short_repeats(const std::string& text);

}  // namespace hadal
