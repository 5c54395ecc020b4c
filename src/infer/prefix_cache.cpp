#include "infer/prefix_cache.h"

#include "core/error.h"

namespace hadal {

PrefixCache::PrefixCache(KvCache& kv, int64_t chunk, std::unique_ptr<PrefixStore> store)
    : kv_(kv), chunk_(chunk), store_(std::move(store)) {
  CHECK(chunk_ > 0 && chunk_ % KvCache::page_rows == 0);
}

PrefixCache::~PrefixCache() {
  for (const auto& [generation, root] : roots_) save_all(*root);
}

PrefixCache::Node* PrefixCache::root(uint64_t generation) {
  std::unique_ptr<Node>& root = roots_[generation];
  if (!root) {
    root = std::make_unique<Node>();
    root->stored = store_ && generation == 0;
    if (root->stored) root->key = store_->first_key();
  }
  return root.get();
}

PrefixCache::Node* PrefixCache::known(const Node* at, std::span<const int32_t> tokens) {
  const auto found = at->next.find({tokens.begin(), tokens.end()});
  return found != at->next.end() ? found->second.get() : nullptr;
}

PrefixCache::Node* PrefixCache::find(Node* at, std::span<const int32_t> tokens) {
  if (Node* node = known(at, tokens); node || !at->stored) return node;
  const PrefixKey key = PrefixStore::next_key(at->key, tokens);
  if (!store_->has(key)) return nullptr;
  use(at);  // it must not go to make room
  PageSet pages;
  bool room = true, drafted = false;
  while (room && !kv_.take(pages, chunk_ / KvCache::page_rows)) room = give_back_one();
  leave(at);
  if (!room) return nullptr;
  if (store_->load(key, kv_.memory(pages), drafted)) return add(at, tokens, std::move(pages), drafted);
  kv_.give_back(pages);
  return nullptr;
}

PrefixCache::Node* PrefixCache::add(Node* at, std::span<const int32_t> tokens, PageSet pages, bool drafted) {
  auto node = std::make_unique<Node>();
  node->parent = at, node->tokens.assign(tokens.begin(), tokens.end()), node->pages = std::move(pages), node->drafted = drafted;
  node->used = ++clock_;
  node->stored = at->stored;
  if (node->stored) node->key = PrefixStore::next_key(at->key, tokens);
  ++at->users, ++nodes_;
  return (at->next[node->tokens] = std::move(node)).get();
}

namespace {
int64_t in_use(const PrefixCache::Node& node) {  // nodes on the way to a sequence
  int64_t sum = 0;
  for (const auto& [tokens, next] : node.next) sum += in_use(*next);
  const bool itself = node.parent && (sum > 0 || node.users > int64_t(node.next.size()));
  return sum + itself;
}
}  // namespace

int64_t PrefixCache::unused_pages() const {
  int64_t nodes = nodes_;
  for (const auto& [generation, root] : roots_) nodes -= in_use(*root);
  return nodes * chunk_ / KvCache::page_rows;
}

PrefixCache::Node* PrefixCache::unused_longest(Node& from) const {
  Node* oldest = nullptr;
  for (const auto& [tokens, node] : from.next) {
    Node* candidate = node->users == 0 ? node.get() : unused_longest(*node);
    if (candidate && (!oldest || candidate->used < oldest->used)) oldest = candidate;
  }
  return oldest;
}

bool PrefixCache::give_back_one() {
  Node* oldest = nullptr;
  for (const auto& [generation, root] : roots_)
    if (Node* candidate = unused_longest(*root); candidate && (!oldest || candidate->used < oldest->used)) oldest = candidate;
  if (oldest) give_back(*oldest);
  return oldest != nullptr;
}

void PrefixCache::give_back(Node& node) {
  save(node);
  kv_.give_back(node.pages);
  --node.parent->users, --nodes_;
  node.parent->next.erase(std::vector(node.tokens));
}

void PrefixCache::take_out(Node* node) {
  while (Node* unused = unused_longest(*node)) give_back(*unused);
  CHECK(node->next.empty() && node->users == 1);
  --node->parent->users, --nodes_;
  node->parent->next.erase(std::vector(node->tokens));
}

void PrefixCache::save(const Node& node) {
  if (node.stored) store_->save(node.key, kv_.memory(node.pages), node.drafted);
}

void PrefixCache::save_all(const Node& from) {
  for (const auto& [tokens, node] : from.next) {
    save(*node);
    save_all(*node);
  }
}

}  // namespace hadal
