// Beginnings of prompts whose keys and values are kept for whoever begins alike: a tree of chunks of tokens, each with its pages.
// A sequence borrows the pages of a path through the tree; of what nobody uses, the longest unused goes first when memory is short.
// Source: RadixAttention (SGLang, arXiv 2312.07104), with chunks of one length instead of edges of any.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "infer/kv_cache.h"
#include "infer/prefix_store.h"

namespace hadal {

class PrefixCache {
 public:
  struct Node {
    Node* parent = nullptr;  // null: where the prompts of one generation begin
    std::vector<int32_t> tokens;
    bool stored = false;  // it has a place in the store, under this key
    PrefixKey key{};
    PageSet pages;
    bool drafted = false;  // the draft layer has seen these rows too
    int64_t users = 0;     // sequences, and nodes further on
    int64_t used = 0;      // when last
    std::map<std::vector<int32_t>, std::unique_ptr<Node>> next;
  };
  // chunk: tokens of a node, whole pages. store: where what goes is written, and what is not here is looked for; null: nowhere
  PrefixCache(KvCache& kv, int64_t chunk, std::unique_ptr<PrefixStore> store);
  ~PrefixCache();  // writes what is not in the store yet

  int64_t chunk() const { return chunk_; }
  Node* root(uint64_t generation);  // of the weights: what one has read is of no use to another. The store knows 0 only, the model itself
  // The node behind `at` for these tokens; null: none. The caller uses it or it may go. find: also from the store.
  static Node* known(const Node* at, std::span<const int32_t> tokens);
  Node* find(Node* at, std::span<const int32_t> tokens);
  Node* add(Node* at, std::span<const int32_t> tokens, PageSet pages, bool drafted);
  void use(Node* node) { ++node->users, node->used = ++clock_; }
  void leave(Node* node) { --node->users; }
  void take_out(Node* node);  // whose one user gets the pages; what is behind it is used by nobody, and given back
  bool give_back_one();       // to the free pages; false: whatever is kept is in use
  int64_t pages() const { return nodes_ * chunk_ / KvCache::page_rows; }
  int64_t unused_pages() const;  // that give_back_one() would free one after the other

 private:
  Node* unused_longest(Node& from) const;
  void give_back(Node& node);
  void save(const Node& node);
  void save_all(const Node& from);

  KvCache& kv_;
  const int64_t chunk_;
  std::unique_ptr<PrefixStore> store_;
  std::map<uint64_t, std::unique_ptr<Node>> roots_;
  int64_t clock_ = 0, nodes_ = 0;
};

}  // namespace hadal
