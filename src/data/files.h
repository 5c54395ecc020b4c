// Sources that are files.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/source.h"

namespace hadal {

// A file, the files of a folder and its folders that end in `extension`, or those that a pattern with * and ? matches; by name.
// Error when there is none.
std::vector<std::filesystem::path> find_data_files(const std::string& path, const std::string& extension);

std::unique_ptr<Source> open_text(const SourceConfig& config);    // documents of at most 8 KB, cut between paragraphs where there are any
std::unique_ptr<Source> open_corpus(const SourceConfig& config);  // the same of cache/corpus/NAME, where script/corpus has put it
std::unique_ptr<Source> open_jsonl(const SourceConfig& config);   // an object a line, with the fields that the config names

// "train", "test" (every 50th example) or "all" of a source.
std::unique_ptr<Source> take_split(std::unique_ptr<Source> source, const std::string& split);

}  // namespace hadal
