#include "infer/kv_cache.h"

#include <algorithm>

#include "core/error.h"

namespace hadal {
namespace {
int64_t whole_pages(int64_t rows) { return (rows + KvCache::page_rows - 1) / KvCache::page_rows; }
}  // namespace

int64_t KvCache::Group::pages_for(int64_t rows) const {
  return mask.window > 0 ? std::min(whole_pages(rows), mask.sink_pages() + ring) : whole_pages(rows);
}

std::vector<KvCache::Group> KvCache::groups_for(const ModelConfig& config, DType type, int64_t rows, int64_t sequences, int64_t spare_rows,
                                                std::vector<Place>& places) {
  const bool latent = config.attention == AttentionKind::mla;
  const int64_t page = page_bytes(config, type);
  const int64_t sketches = latent ? sketch_bytes(config.kv_rank + config.rope_dim) : config.kv_heads * sketch_bytes(config.head_dim);
  std::vector<Group> groups;
  for (int64_t layer = 0; layer < config.cached_layers(); ++layer) {
    const LayerMask wanted = config.mask_of(layer);
    const Mask mask{wanted.window, wanted.sinks, wanted.top_blocks};
    auto at = std::ranges::find(groups, mask, &Group::mask);
    if (at == groups.end()) {
      groups.push_back({.mask = mask,
                        .page_bytes = page + (mask.top_blocks > 0 ? sketches : 0),
                        .ring = whole_pages(mask.window + spare_rows - 1) + 1,
                        .free = {}});
      at = groups.end() - 1;
    }
    places.push_back({int32_t(at - groups.begin()), at->layers++});
  }
  for (Group& g : groups) g.pages = std::min(whole_pages(rows), g.mask.window > 0 ? sequences * g.pages_for(rows) : whole_pages(rows));
  return groups;
}

KvCache::KvCache(const ModelConfig& config, DType type, int64_t rows, int64_t sequences, int64_t spare_rows)
    : type_(type),
      width_(config.kv_width()),
      page_bytes_(page_bytes(config, type)),
      groups_(groups_for(config, type, rows, sequences, spare_rows, group_of_)),
      storage_(size_t(bytes(config, type, rows, sequences, spare_rows)), "the key-value cache") {
  int64_t at = 0;
  for (Group& g : groups_) {
    g.offset = at;
    at += g.layers * g.pages * g.page_bytes;
    for (int64_t p = g.pages; p-- > 0;) g.free.push_back(int32_t(p));  // page 0 is taken first
  }
}

int64_t KvCache::page_bytes(const ModelConfig& config, DType type) {
  CHECK(type == DType::f32 || type == DType::f16 || type == DType::i8);
  if (type != DType::i8) return bytes_of(type, page_rows * config.kv_width());
  if (config.attention == AttentionKind::gqa) return 2 * config.kv_heads * part_bytes(config.head_dim);
  return part_bytes(config.kv_rank) + part_bytes(config.rope_dim) + (config.indexer.heads > 0 ? part_bytes(config.indexer.dim) : 0);
}

int64_t KvCache::bytes_per_row(const ModelConfig& config, DType type) {
  return config.cached_layers() * page_bytes(config, type) / page_rows;
}

int64_t KvCache::bytes(const ModelConfig& config, DType type, int64_t rows, int64_t sequences, int64_t spare_rows) {
  std::vector<Place> places;
  int64_t sum = 0;
  for (const Group& g : groups_for(config, type, rows, sequences, spare_rows, places)) sum += g.layers * g.pages * g.page_bytes;
  return sum;
}

int64_t KvCache::most_rows() const {
  int64_t most = INT64_MAX / 4;
  for (const Group& g : groups_)
    if (g.mask.window == 0 || g.pages < g.mask.sink_pages() + g.ring) most = std::min(most, g.pages * page_rows);
  return most;
}

int64_t KvCache::pages() const { return std::ranges::max_element(groups_, {}, &Group::pages)->pages; }

int64_t KvCache::free_pages() const {
  int64_t fewest = INT64_MAX;
  for (const Group& g : groups_) fewest = std::min(fewest, int64_t(g.free.size()));
  return fewest;
}

bool KvCache::reserve(KvRows& sequence, int64_t rows) {
  sequence.pages.resize(groups_.size());
  const auto missing = [&](size_t g) { return groups_[g].pages_for(rows) - int64_t(sequence.pages[g].size()); };
  for (size_t g = 0; g < groups_.size(); ++g)
    if (missing(g) > int64_t(groups_[g].free.size())) return false;
  for (size_t g = 0; g < groups_.size(); ++g)
    for (int64_t count = missing(g); count > 0; --count) {
      sequence.pages[g].push_back(groups_[g].free.back());
      groups_[g].free.pop_back();
    }
  return true;
}

bool KvCache::fits(const KvRows& sequence, int64_t rows, int64_t more) const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t held = sequence.pages.empty() ? 0 : int64_t(sequence.pages[g].size());
    if (groups_[g].pages_for(rows) - held > int64_t(groups_[g].free.size()) + more) return false;
  }
  return true;
}

void KvCache::release(KvRows& sequence) {
  for (size_t g = 0; g < sequence.pages.size(); ++g)
    groups_[g].free.insert(groups_[g].free.end(), sequence.pages[g].rbegin(), sequence.pages[g].rend() - sequence.borrowed);
  sequence = {};
}

bool KvCache::can_share() const {
  return std::ranges::all_of(groups_, [](const Group& g) { return g.mask.window == 0; });
}

PageSet KvCache::lend(KvRows& sequence, int64_t count) {
  CHECK(can_share() && (sequence.borrowed + count) * page_rows <= sequence.length);
  PageSet lent;
  for (const std::vector<int32_t>& pages : sequence.pages) {
    const auto first = pages.begin() + sequence.borrowed;
    lent.emplace_back(first, first + count);
  }
  sequence.borrowed += count;
  return lent;
}

void KvCache::borrow(KvRows& sequence, const PageSet& pages) {
  CHECK(can_share() && sequence.turned == 0 && pages.size() == groups_.size());
  sequence.pages.resize(groups_.size());
  const int64_t count = int64_t(pages.front().size());
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<int32_t>& own = sequence.pages[g];
    const int64_t known = std::min(count, int64_t(own.size()) - sequence.borrowed);
    const auto first = own.begin() + sequence.borrowed;
    groups_[g].free.insert(groups_[g].free.end(), first, first + known);
    std::copy_n(pages[g].begin(), known, first);
    own.insert(first + known, pages[g].begin() + known, pages[g].end());
  }
  sequence.borrowed += count;
}

bool KvCache::take(PageSet& pages, int64_t count) {
  if (count > free_pages()) return false;
  pages.resize(groups_.size());
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<int32_t>& free = groups_[g].free;
    pages[g].insert(pages[g].end(), free.end() - count, free.end());
    free.resize(free.size() - size_t(count));
  }
  return true;
}

void KvCache::give_back(PageSet& pages) {
  for (size_t g = 0; g < pages.size(); ++g) groups_[g].free.insert(groups_[g].free.end(), pages[g].rbegin(), pages[g].rend());
  pages.clear();
}

std::vector<std::span<std::byte>> KvCache::memory(const PageSet& pages) const {
  std::vector<std::span<std::byte>> all;
  for (const Place& place : group_of_) {
    const Group& g = groups_[size_t(place.group)];
    for (const int32_t page : pages[size_t(place.group)])
      all.emplace_back(storage_.data() + g.offset + (place.index * g.pages + page) * g.page_bytes, size_t(g.page_bytes));
  }
  return all;
}

int64_t KvCache::most_droppable(int64_t rows, int64_t first) const {
  int64_t behind = 0;
  for (const Group& g : groups_) {
    if (g.mask.window > 0) behind = std::max(behind, g.ring);
    if (g.mask.sink_pages() > first) return 0;
  }
  return std::max<int64_t>(0, rows / page_rows - first - behind);
}

void KvCache::drop(KvRows& sequence, int64_t first, int64_t count) {
  CHECK(count <= most_droppable(sequence.length, first) && sequence.borrowed == 0);
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g].mask.window > 0) continue;
    std::vector<int32_t>& pages = sequence.pages[g];
    const auto from = pages.begin() + first;
    groups_[g].free.insert(groups_[g].free.end(), from, from + count);
    pages.erase(from, from + count);
  }
  sequence.length -= count * page_rows;
  sequence.turned += count;
}

int64_t KvCache::first_kept(int64_t layer, const KvRows& sequence) const {
  const Group& g = groups_[size_t(group_of_[size_t(layer)].group)];
  return g.mask.window > 0 ? std::max(g.mask.sink_pages(), whole_pages(sequence.length) - g.ring) : 0;
}

std::byte* KvCache::page(int64_t layer, const KvRows& sequence, int64_t index) const {
  const Place place = group_of_[size_t(layer)];
  const Group& g = groups_[size_t(place.group)];
  const int64_t sinks = g.mask.sink_pages();
  if (g.mask.window > 0 && index >= sinks) index = sinks + (index - sinks + sequence.turned) % g.ring;
  const int32_t page = sequence.pages[size_t(place.group)].at(size_t(index));
  return storage_.data() + g.offset + (place.index * g.pages + page) * g.page_bytes;
}

std::vector<std::byte*> KvCache::pages_of(int64_t layer, const KvRows& sequence) const {
  const Place place = group_of_[size_t(layer)];
  const Group& g = groups_[size_t(place.group)];
  std::vector<std::byte*> all;
  for (const int32_t page : sequence.pages[size_t(place.group)])
    all.push_back(storage_.data() + g.offset + (place.index * g.pages + page) * g.page_bytes);
  return all;
}

int64_t KvCache::rows_together(int64_t layer, int64_t position, int64_t rows) const {
  const Group& g = groups_[size_t(group_of_[size_t(layer)].group)];
  if (g.mask.window == 0) return rows;
  const int64_t first = std::max(g.mask.first_page(position), g.mask.sink_pages());
  return std::min(rows, (first + g.ring) * page_rows - position);
}

}  // namespace hadal
