#include "data/source.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "data/files.h"
#include "data/recall.h"
#include "data/world_qa.h"

namespace hadal {

// A new kind is one file with a function that opens it, and a line here.
const std::vector<SourceKind>& source_kinds() {
  static const std::vector<SourceKind> kinds = {
      {"text", "UTF-8 files (.txt), documents cut between paragraphs", open_text},
      {"corpus", "text that script/corpus NAME has fetched", open_corpus},
      {"jsonl", "a JSON object a line: text, or question and answer", open_jsonl},
      {"world_qa", "made questions about documents, in English and Chinese; splits by what training has not seen", open_world_qa},
      {"world_text", "made documents and stories of the same worlds, without questions", open_world_text},
      {"recall", "something told many tokens ago: one type, \"LETTERS DISTANCE\"", open_recall},
  };
  return kinds;
}

uint64_t hash_of_examples(const Source& source) {
  uint64_t hash = source.hash();
  for (int64_t i = 0; i < std::min<int64_t>(100, source.size()); ++i) hash = hash_bytes(source.at(i).whole(), hash);
  return hash;
}

std::unique_ptr<Source> open_source(const SourceConfig& config) {
  std::string names;
  for (const SourceKind& kind : source_kinds()) {
    if (kind.name == config.kind) return kind.open(config);
    names += (names.empty() ? "" : ", ") + kind.name;
  }
  throw Error("unknown kind of data source \"{}\": expected one of {}", config.kind, names);
}

}  // namespace hadal
