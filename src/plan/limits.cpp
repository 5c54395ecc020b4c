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
    for (const Block<Weight>& block : model_.params.blocks) {
      std::visit([&](const auto& w) { attention(w); }, block.attn);
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

  // ops: of one row and one key.
  void keys(double ops, double most_keys) {
    const double rows = double(shape_.rows), before = shape_.depth;
    const double seen = rows * before + rows * (rows + 1) / 2;  // by the rows of one sequence, each up to its own
    const double kept = std::min(seen, rows * most_keys);
    at(Phase::attention).float_ops += double(shape_.sequences) * kept * ops;
    at(Phase::attention).bytes += double(shape_.sequences) * std::min(before + rows, rows * most_keys) * row_bytes();
  }

  double row_bytes() const { return double(KvCache::bytes_per_row(c_, cache_)) / double(c_.layers); }

  void attention(const Gqa<Weight>& w) {
    for (const Weight* part : {&w.q, &w.k, &w.v}) product(Phase::qkv, *part, rows_);
    keys(4 * double(c_.heads * c_.head_dim), INFINITY);
    product(Phase::out, w.o, rows_);
  }

  // Going into the latent space and out of it costs a row as much as expanding its own keys and values.
  void attention(const Mla<Weight>& w) {
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
    if (c_.indexer.heads > 0) {
      for (const Weight* part : {&w.indexer.q_up, &w.indexer.key, &w.indexer.head_weights}) product(Phase::qkv, *part, rows_);
      keys(2 * double(c_.heads) * width, double(c_.indexer.keys));
      const double rows = double(shape_.rows);
      at(Phase::attention).float_ops +=
          double(shape_.sequences) * (rows * shape_.depth + rows * (rows + 1) / 2) * 2 * double(c_.indexer.heads * c_.indexer.dim);
    } else {
      keys(2 * double(c_.heads) * width, INFINITY);
    }
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
  return std::max(work.bytes / machine.read_all, (work.float_ops + work.integer_ops) / machine.flops_all);
}

}  // namespace hadal
