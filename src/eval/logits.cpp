#include "eval/logits.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace hadal {

Feeder::Feeder(const Model& model, const FeedOptions& options, int64_t longest)
    : model_(model),
      chunk_(std::clamp<int64_t>(options.chunk, 1, std::max<int64_t>(longest, 1))),
      longest_(longest),
      adapter_(options.adapter),
      cache_(model.config, options.cache, longest),
      scratch_(model.config, chunk_, chunk_) {}

void Feeder::run(std::span<const int32_t> tokens, int64_t first, int64_t end, const Visit& visit) {
  const int64_t count = int64_t(tokens.size());
  if (count == 0) throw Error("no tokens to evaluate: expected at least one");
  if (count > longest_) throw Error("{} tokens do not fit: expected at most {}", count, longest_);
  for (const int32_t token : tokens) {
    if (token < 0 || token >= model_.config.vocab)
      throw Error("token id {} is out of range: expected 0 to {}", token, model_.config.vocab - 1);
  }
  struct Sequence : KvRows {  // gives its pages back also when visit throws
    KvCache& cache;
    explicit Sequence(KvCache& c) : cache(c) {}
    ~Sequence() { cache.release(*this); }
  } sequence(cache_);
  std::vector<int32_t> wanted;
  for (int64_t at = 0; at < std::min(end, count); at += chunk_) {
    const int64_t rows = std::min(chunk_, count - at);
    if (!cache_.reserve(sequence, at + rows)) throw Error("no room for {} rows in the cache", at + rows);
    const int64_t from = std::max(first, at), to = std::min(end, at + rows);
    wanted.resize(size_t(std::max<int64_t>(to - from, 0)));
    std::iota(wanted.begin(), wanted.end(), int32_t(from - at));
    const Segment segment{&sequence, 0, rows, at, adapter_.get()};
    const Mat<float> logits = forward(model_, {tokens.subspan(size_t(at), size_t(rows)), {&segment, 1}, wanted}, cache_, scratch_);
    if (!wanted.empty()) visit(from, logits);
  }
}

namespace {
bool is_packed_part(const Gqa<Weight>& w) { return is_packed(w.v.dtype); }
bool is_packed_part(const Mla<Weight>& w) { return is_packed(w.kv_down.dtype); }
}  // namespace

DType natural_cache(const Model& model) {
  const bool packed = !model.params.blocks.empty() &&
                      std::visit([](const auto& attention) { return is_packed_part(attention); }, model.params.blocks.front().attn);
  if (packed) return DType::i8;
  return model.params.embed.dtype == DType::f32 ? DType::f32 : DType::f16;
}

std::string npy_header(int64_t rows, int64_t cols) {
  std::string dict = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  constexpr size_t magic = 10;  // "\x93NUMPY", two bytes of version, two of length; the whole is a multiple of 64
  dict.append(63 - (magic + dict.size()) % 64, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += char(dict.size() & 0xff);
  header += char(dict.size() >> 8);
  return header + dict;
}

}  // namespace hadal
