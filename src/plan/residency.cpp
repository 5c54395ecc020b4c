#include "plan/residency.h"

#include <algorithm>

#include "core/error.h"
#include "infer/expert_store.h"
#include "infer/kv_cache.h"
#include "infer/model.h"
#include "plan/limits.h"

namespace hadal {
namespace {

constexpr int64_t program = 64 << 20;  // code, tokenizer, buffers that are small beside everything else

int64_t weight_bytes(const Model& model) {
  int64_t sum = 0;
  Params<Weight> params = model.params;
  for_each_param(model.config, params, [&](const std::string&, Shape, Role, Weight& w) { sum += w.bytes(); });
  for (const Weight& w : model.k_up_t) sum += w.bytes();
  return sum;
}

// What the widest buffers of Scratch take (infer/scratch.cpp), and the experts' own.
int64_t scratch_bytes(const ModelConfig& c, int64_t rows) {
  const bool mla = c.attention == AttentionKind::mla;
  int64_t per_row = 3 * c.dim + c.heads * (c.q_dim() + (mla ? c.v_dim : c.head_dim)) + c.vocab + c.dim;
  per_row += mla ? c.q_rank + c.kv_rank + c.rope_dim + c.heads * (2 * c.kv_rank + c.rope_dim) : 2 * c.kv_heads * c.head_dim;
  per_row += 2 * std::max(c.ffn_dim, c.moe.shared * c.moe.expert_dim) + c.moe.active * (3 * c.dim + 3 * c.moe.expert_dim);
  return rows * per_row * int64_t(sizeof(float));
}

}  // namespace

Residency fit(const Model& model, int64_t budget, DType cache, int64_t cache_rows, int64_t max_rows) {
  const ModelConfig& c = model.config;
  const int64_t routed = routed_expert_bytes(model), slot = ExpertStore::slot_bytes(model), least_slots = c.moe.active + 2;
  Residency r;
  r.fixed = weight_bytes(model) - routed + program;
  r.cache = KvCache::bytes(c, cache, cache_rows);
  r.scratch = scratch_bytes(c, max_rows);
  const int64_t left = budget - r.bytes(), least = routed == 0 ? 0 : std::min(routed, least_slots * slot);
  if (left < least)
    throw Error(
        "{:.2f} GB are too little for this model: expected at least {:.2f} GB ({:.2f} GB of weights that every token reads, {:.2f} GB of "
        "keys "
        "and values, {:.2f} GB of activations, {:.2f} GB of routed experts)",
        double(budget) / 1e9, double(r.bytes() + least) / 1e9, double(r.fixed) / 1e9, double(r.cache) / 1e9, double(r.scratch) / 1e9,
        double(least) / 1e9);
  r.streams = left < routed;
  r.arena = r.streams ? left / slot * slot : routed;
  int64_t experts = 0;
  for (int64_t l = 0; l < c.layers; ++l) experts += c.is_moe(l) ? c.moe.experts : 0;
  r.slots = r.streams ? r.arena / slot : experts;
  r.hit_rate = r.streams ? double(r.slots) / double(experts) : 1;
  return r;
}

// The disk works while the processor does, but for the experts that the look-ahead did not name, which are waited for.
double seconds_per_token(const Model& model, const Residency& residency, const Machine& machine, double disk, DType cache, double depth) {
  constexpr double reached = 0.85;  // of the memory's bandwidth, in a whole token
  const double computing = least_seconds(machine, sum(work_of(model, cache, {.depth = depth}))) / reached;
  if (!residency.streams) return computing;
  const ModelConfig& c = model.config;
  double asked = 0;
  for (int64_t l = 0; l < c.layers; ++l) asked += c.is_moe(l) ? double(c.moe.active) : 0;
  const double reading = asked * (1 - residency.hit_rate) * double(ExpertStore::slot_bytes(model)) / disk;
  return computing + reading;
}

}  // namespace hadal
