// The vocabulary of the tests' runs.
#pragma once
#include <filesystem>

#include "data/train_tokenizer.h"

namespace hadal::train {

inline void make_small_tokenizer(const std::filesystem::path& folder, int64_t vocab) {
  SourceConfig world;
  world.kind = "world_qa";
  const std::unique_ptr<Source> source = open_source(world);
  TokenizerOptions how;
  how.vocab = vocab;
  how.examples = 300;
  const Source* all[] = {source.get()};
  std::filesystem::create_directories(folder);
  train_tokenizer(all, folder, how);
}

}  // namespace hadal::train
