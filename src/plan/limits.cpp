#include "plan/limits.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "infer/kv_cache.h"
#include "infer/model.h"

namespace hadal {
namespace {

class Counter {
 public:
  Counter(const Model& model, DType cache, const PassShape& shape)
      : model_(model), c_(model.config), shape_(shape), cache_(cache), rows_(double(shape.sequences * shape.rows)) {}

  PhaseWork count() {
    const Weight& table = model_.params.embed;
    at(Phase::embed).bytes += rows_ * double(table.bytes()) / double(std::max<int64_t>(1, table.rows));
    for (int64_t layer = 0; layer < c_.layers; ++layer) {
      const Block<Weight>& block = model_.params.blocks[size_t(layer)];
      std::visit([&](const auto& w) { attention(w, visible(layer)); }, block.attn);
      std::visit([&](const auto& w) { feed_forward(w); }, block.ffn);
    }
    product(Phase::head, c_.tied_head ? table : model_.params.head, double(shape_.wanted));
    return work_;
  }

 private:
  Work& at(Phase phase) { return work_[size_t(phase)]; }

  void product(Phase phase, const Weight& w, double rows) {
    at(phase).bytes += double(w.bytes());
    (is_packed(w.dtype) ? at(phase).integer_ops : at(phase).float_ops) += 2 * rows * double(w.rows) * double(w.cols);
  }

  // The most keys that a row of the layer attends to.
  double visible(int64_t layer) const {
    const LayerMask mask = c_.mask_of(layer);
    const double in_window = mask.window > 0 ? double(mask.window + mask.sinks) : INFINITY;
    const double in_blocks = mask.top_blocks > 0 ? double(mask.top_blocks * KvCache::page_rows) : INFINITY;
    return std::min(in_window, in_blocks);
  }

  // Keys attended to by the rows of one sequence, each up to its own and at most so many.
  double pairs(double most) const {
    const double rows = double(shape_.rows), few = std::clamp(most - shape_.depth, 0., rows);  // rows that see all there is
    return few * shape_.depth + few * (few + 1) / 2 + (rows - few > 0 ? (rows - few) * most : 0);
  }

  // ops: of one row and one key; read: cached rows of one sequence.
  void keys(double ops, double most, double read, bool integers) {
    Work& work = at(Phase::attention);
    (integers ? work.integer_ops : work.float_ops) += double(shape_.sequences) * pairs(most) * ops;
    work.bytes += double(shape_.sequences) * std::min(shape_.depth + double(shape_.rows), read) * row_bytes();
  }

  double row_bytes() const { return double(KvCache::page_bytes(c_, cache_)) / double(KvCache::page_rows); }

  void attention(const Gqa<Weight>& w, double most) {
    for (const Weight* part : {&w.q, &w.k, &w.v}) product(Phase::qkv, *part, rows_);
    keys(4 * double(c_.heads * c_.head_dim), most, most + double(shape_.rows - 1), cache_ == DType::i8);
    product(Phase::out, w.o, rows_);
  }

  // Going into the latent space and out of it costs a row as much as expanding its own keys and values.
  void attention(const Mla<Weight>& w, double most) {
    if (c_.q_rank == 0) {
      product(Phase::qkv, w.q, rows_);
    } else {
      product(Phase::qkv, w.q_down, rows_);
      product(Phase::qkv, w.q_up, rows_);
    }
    product(Phase::qkv, w.kv_down, rows_);
    product(Phase::latent, w.kv_up, rows_);
    const bool expands = shape_.rows >= model_.mla_expand_rows;
    const double width = expands ? double(c_.q_dim() + c_.v_dim) : double(2 * c_.kv_rank + c_.rope_dim);
    const bool integers = cache_ == DType::i8 && !expands;
    double read = most + double(shape_.rows - 1);
    if (c_.indexer.heads > 0) {
      for (const Weight* part : {&w.indexer.q_up, &w.indexer.key, &w.indexer.head_weights}) product(Phase::qkv, *part, rows_);
      at(Phase::attention).float_ops += double(shape_.sequences) * pairs(INFINITY) * 2 * double(c_.indexer.heads * c_.indexer.dim);
      most = std::min(most, double(c_.indexer.keys));
      read = double(shape_.rows) * most;  // each row chooses its own
    }
    keys(2 * double(c_.heads) * width, most, read, integers);
    product(Phase::out, w.o, rows_);
  }

  void feed_forward(const Mlp<Weight>& w) {
    for (const Weight* part : {&w.gate, &w.up, &w.down}) product(Phase::mlp, *part, rows_);
  }

  void feed_forward(const Moe<Weight>& w) {
    product(Phase::router, w.router, rows_);
    if (c_.moe.shared > 0) feed_forward(w.shared);
    const double all = double(c_.moe.experts), chosen = double(c_.moe.active) / all;
    const double read = shape_.experts > 0 ? shape_.experts : all * (1 - std::pow(1 - chosen, rows_));
    const Mlp<Weight>& one = w.experts.front();
    for (const Weight* part : {&one.gate, &one.up, &one.down}) {
      product(Phase::experts, *part, rows_ * double(c_.moe.active));
      at(Phase::experts).bytes += (read - 1) * double(part->bytes());
    }
  }

  const Model& model_;
  const ModelConfig& c_;
  const PassShape& shape_;
  const DType cache_;
  const double rows_;
  PhaseWork work_{};
};

}  // namespace

Work& Work::operator+=(const Work& other) {
  bytes += other.bytes;
  float_ops += other.float_ops;
  integer_ops += other.integer_ops;
  return *this;
}

PhaseWork work_of(const Model& model, DType cache, const PassShape& shape) { return Counter(model, cache, shape).count(); }

Work sum(const PhaseWork& work) {
  Work all;
  for (const Work& part : work) all += part;
  return all;
}

double least_seconds(const Machine& machine, const Work& work) {
  return std::max(work.bytes / machine.read_all, work.float_ops / machine.flops_all + work.integer_ops / machine.ops_all);
}

}  // namespace hadal
