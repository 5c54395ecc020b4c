// Pages of token rows. It knows how many bytes a page has and which layers forget what, not what attention keeps in a row.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/mat.h"
#include "core/memory.h"
#include "model/config.h"
#include "ops/attend.h"

namespace hadal {

using PageSet = std::vector<std::vector<int32_t>>;  // pages of each group of layers

struct KvRows {          // what one sequence holds
  PageSet pages;         // of a group with a window: the sinks' pages, then a ring; of another: all
  int64_t length = 0;    // rows written
  int64_t turned = 0;    // pages that were dropped: where the rings begin
  int64_t borrowed = 0;  // the first pages belong to somebody else: they are read only, and not freed
};

// Layers with the same mask are a group with pages of its own. A group without a window keeps every row of a sequence; one with a window
// keeps the sinks' pages and a ring of as many pages as a window can touch: page `index` of a sequence then lies where page
// `index - ring` lay. forward() writes and attends to as many rows at a time as the ring allows.
class KvCache {
 public:
  static constexpr int64_t page_rows = 64;
  // type f32, f16 or i8; rows of all sequences together, the sequences being at most so many at a time. Of spare_rows rows that were
  // written, all but one may be taken back (`length` lowered) without a window missing any. Error: no memory
  KvCache(const ModelConfig& config, DType type, int64_t rows, int64_t sequences = 1, int64_t spare_rows = 1);
  bool reserve(KvRows& sequence, int64_t rows);                         // room for `rows` in all; false: no page free, nothing changed
  bool fits(const KvRows& sequence, int64_t rows, int64_t more) const;  // would reserve() do, had each group `more` free pages?
  void release(KvRows& sequence);                                       // its pages are free again, its length 0
  // Pages first .. first + count - 1 are free again, and what lay behind them has moved up. Not more than most_droppable: behind them stay
  // as many full pages as a window can touch, and sinks lie before them.
  void drop(KvRows& sequence, int64_t first, int64_t count);
  int64_t most_droppable(int64_t rows, int64_t first) const;        // of a sequence with so many rows; 0: none
  int64_t first_kept(int64_t layer, const KvRows& sequence) const;  // the page behind the sinks' from which on the layer has all

  // Full pages may be shared by sequences that begin alike, where no layer has a window.
  bool can_share() const;
  PageSet lend(KvRows& sequence, int64_t count);        // its next `count` pages become the caller's, who keeps them while it is alive
  void borrow(KvRows& sequence, const PageSet& pages);  // instead of its next pages, which become free if it has them
  bool take(PageSet& pages, int64_t count);             // of each group; false: no page free, nothing changed
  void give_back(PageSet& pages);                       // free again
  std::vector<std::span<std::byte>> memory(const PageSet& pages) const;  // in a fixed order

  // The page of rows index * page_rows .. of a sequence, for a layer; with a window only if it is a sink's or in the ring.
  std::byte* page(int64_t layer, const KvRows& sequence, int64_t index) const;
  std::vector<std::byte*> pages_of(int64_t layer, const KvRows& sequence) const;  // all that it holds
  Mask mask(int64_t layer) const { return groups_[size_t(group_of_[size_t(layer)].group)].mask; }
  // Rows from `position` on, at most `rows`, that can be in the cache together with all that they see.
  int64_t rows_together(int64_t layer, int64_t position, int64_t rows) const;

  DType type() const { return type_; }
  int64_t width() const { return width_; }
  int64_t most_rows() const;   // of one sequence: without an end where every layer forgets
  int64_t pages() const;       // of the group with the most
  int64_t free_pages() const;  // of the group with the fewest
  int64_t page_bytes(int64_t layer) const { return groups_[size_t(group_of_[size_t(layer)].group)].page_bytes; }
  // Behind what a page holds otherwise, in layers that choose blocks: each kv head's sketch.
  int64_t sketch_offset() const { return page_bytes_; }
  size_t bytes() const { return storage_.size(); }
  static int64_t page_bytes(const ModelConfig& config, DType type);     // one layer
  static int64_t bytes_per_row(const ModelConfig& config, DType type);  // all layers, without windows
  static int64_t bytes(const ModelConfig& config, DType type, int64_t rows, int64_t sequences = 1,
                       int64_t spare_rows = 1);  // what the constructor takes

 private:
  struct Group {
    Mask mask;
    int64_t page_bytes = 0, ring = 0;           // ring: pages
    int64_t layers = 0, pages = 0, offset = 0;  // offset: of its first page in the storage
    std::vector<int32_t> free;
    int64_t pages_for(int64_t rows) const;  // of one sequence
  };
  struct Place {
    int32_t group;
    int64_t index;  // of the layer within the group
  };
  static std::vector<Group> groups_for(const ModelConfig& config, DType type, int64_t rows, int64_t sequences, int64_t spare_rows,
                                       std::vector<Place>& places);

  DType type_;
  int64_t width_, page_bytes_;
  std::vector<Place> group_of_;  // each layer
  std::vector<Group> groups_;
  Buffer storage_;
};

}  // namespace hadal
