#include "infer/kv_cache.h"

#include "core/error.h"

namespace hadal {

KvCache::KvCache(const ModelConfig& config, DType type, int64_t rows)
    : type_(type),
      width_(config.kv_width()),
      pages_((rows + page_rows - 1) / page_rows),
      storage_(size_t(pages_ * page_rows * bytes_per_row(config, type)), "the key-value cache") {
  CHECK(type == DType::f32 || type == DType::f16);
  for (int64_t p = pages_; p-- > 0;) free_.push_back(int32_t(p));  // page 0 is taken first
}

int64_t KvCache::bytes_per_row(const ModelConfig& config, DType type) { return config.layers * config.kv_width() * bytes_of(type, 1); }

bool KvCache::reserve(KvRows& sequence, int64_t rows) {
  const int64_t missing = (rows + page_rows - 1) / page_rows - int64_t(sequence.pages.size());
  if (missing > free_pages()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    sequence.pages.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvCache::release(KvRows& sequence) {
  free_.insert(free_.end(), sequence.pages.rbegin(), sequence.pages.rend());
  sequence = {};
}

std::byte* KvCache::page(int64_t layer, int32_t page) const {
  return storage_.data() + bytes_of(type_, (layer * pages_ + page) * page_rows * width_);
}

}  // namespace hadal
