// Pages of token rows. It knows how wide a row is, not what attention keeps in it.
#pragma once
#include <cstdint>
#include <vector>

#include "core/mat.h"
#include "core/memory.h"
#include "model/config.h"

namespace hadal {

struct KvRows {  // the pages one sequence holds
  std::vector<int32_t> pages;
  int64_t length = 0;  // rows written
};

class KvCache {
 public:
  static constexpr int64_t page_rows = 64;
  KvCache(const ModelConfig& config, DType type, int64_t rows);  // type f32 or f16; rows of all sequences together. Error: no memory
  bool reserve(KvRows& sequence, int64_t rows);                  // room for `rows` in all; false: no page free, nothing changed
  void release(KvRows& sequence);                                // its pages are free again, its length 0
  std::byte* page(int64_t layer, int32_t page) const;            // [page_rows, width] of type()
  int64_t page_bytes() const { return bytes_of(type_, page_rows * width_); }
  DType type() const { return type_; }
  int64_t width() const { return width_; }
  int64_t pages() const { return pages_; }
  int64_t free_pages() const { return int64_t(free_.size()); }
  static int64_t bytes_per_row(const ModelConfig& config, DType type);  // all layers

 private:
  DType type_;
  int64_t width_, pages_;
  Buffer storage_;
  std::vector<int32_t> free_;
};

}  // namespace hadal
