// The specification of the training kernels, and what runs in double or where nothing better does: the formulas of training.h as plain
// loops in the wide type, rounded to T where a result is written.
#include "kernels/training.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace hadal {
namespace {

#include "kernels/vector/visible.inc.h"

template <class T>
Wide<T> load(T v) {
  if constexpr (std::is_same_v<T, uint16_t>)
    return std::bit_cast<float>(uint32_t(v) << 16);
  else
    return v;
}

template <class T>
void store(T& to, Wide<T> v) {
  if constexpr (std::is_same_v<T, uint16_t>) {
    const uint32_t u = std::bit_cast<uint32_t>(v);
    to = (u & 0x7fffffff) > 0x7f800000 ? uint16_t((u >> 16) | 0x40) : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  } else {
    to = v;
  }
}

template <class T>
Wide<T> dot(const T* x, const T* y, int64_t n) {
  Wide<T> sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += load(x[i]) * load(y[i]);
  return sum;
}

template <class T>
void add_scaled(Wide<T>* to, Wide<T> factor, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * load(x[i]);
}

template <class T>
void store_row(T* to, const Wide<T>* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

struct Task {  // of attention
  int64_t batch, kv_head, first_head, last_head;
  template <class T>
  Task(const AttentionArgs<T>& a, int64_t task)
      : batch(task / a.kv_heads),
        kv_head(task % a.kv_heads),
        first_head(kv_head * (a.heads / a.kv_heads)),
        last_head(first_head + a.heads / a.kv_heads) {}
};

template <class Do>
void each_visible(const Visible& visible, int64_t t, Do do_key) {
  for (int64_t block = 0; block < visible.blocks; ++block) {
    const uint64_t seen = visible.of(t, block);
    for (int64_t i = 0; i < block_rows; ++i)
      if (seen >> i & 1) do_key(block * block_rows + i);
  }
}

template <class T>
int64_t attention_scratch(const AttentionArgs<T>& a) {  // a query's scores, its output
  return (a.keys + a.value_dim) * int64_t(sizeof(Wide<T>));
}

template <class T>
void attention(const AttentionArgs<T>& a, int64_t task, void* scratch) {
  constexpr Wide<T> infinity = std::numeric_limits<Wide<T>>::infinity();
  const Task at(a, task);
  const Visible visible = visible_of(a, at.batch, at.kv_head);
  auto *score = static_cast<Wide<T>*>(scratch), *out = score + a.keys;
  for (int64_t head = at.first_head; head < at.last_head; ++head)
    for (int64_t t = 0; t < a.queries; ++t) {
      const T* q = row_of(a.q, at.batch, t, head);
      Wide<T> most = -infinity, sum = 0;
      each_visible(visible, t, [&](int64_t key) {
        score[key] = a.scale * dot(q, row_of(a.k, at.batch, key, at.kv_head), a.dim);
        most = std::max(most, score[key]);
      });
      std::fill_n(out, a.value_dim, Wide<T>(0));
      each_visible(visible, t, [&](int64_t key) {
        const Wide<T> p = std::exp(score[key] - most);
        sum += p;
        add_scaled(out, p, row_of(a.v, at.batch, key, at.kv_head), a.value_dim);
      });
      for (int64_t d = 0; d < a.value_dim; ++d) out[d] = sum > 0 ? out[d] / sum : 0;
      store_row(row_of(a.out, at.batch, t, head), out, a.value_dim);
      a.lse[(at.batch * a.heads + head) * a.queries + t] = sum > 0 ? most + std::log(sum) : -infinity;
    }
}

template <class T>
int64_t attention_backward_scratch(const AttentionArgs<T>& a) {  // dk, dv, dq of a query
  return (a.keys * (a.dim + a.value_dim) + a.dim) * int64_t(sizeof(Wide<T>));
}

// With p = exp(score - lse): dv = p^T dout, dp = dout v^T, ds = p (dp - dout . out), dq = scale ds k, dk = scale ds^T q.
template <class T>
void attention_backward(const AttentionGradArgs<T>& g, int64_t task, void* scratch) {
  const AttentionArgs<T>& a = g.forward;
  const Task at(a, task);
  const Visible visible = visible_of(a, at.batch, at.kv_head);
  auto *dk = static_cast<Wide<T>*>(scratch), *dv = dk + a.keys * a.dim, *dq = dv + a.keys * a.value_dim;
  std::fill(dk, dq, Wide<T>(0));
  for (int64_t head = at.first_head; head < at.last_head; ++head)
    for (int64_t t = 0; t < a.queries; ++t) {
      const T *q = row_of(a.q, at.batch, t, head), *dout = row_of(g.dout, at.batch, t, head);
      const Wide<T> lse = a.lse[(at.batch * a.heads + head) * a.queries + t];
      const Wide<T> delta = dot<T>(dout, row_of(a.out, at.batch, t, head), a.value_dim);
      std::fill_n(dq, a.dim, Wide<T>(0));
      each_visible(visible, t, [&](int64_t key) {
        const T *k = row_of(a.k, at.batch, key, at.kv_head), *v = row_of(a.v, at.batch, key, at.kv_head);
        const Wide<T> p = std::exp(a.scale * dot(q, k, a.dim) - lse);
        const Wide<T> ds = a.scale * p * (dot(dout, v, a.value_dim) - delta);
        add_scaled(dv + key * a.value_dim, p, dout, a.value_dim);
        add_scaled(dk + key * a.dim, ds, q, a.dim);
        add_scaled(dq, ds, k, a.dim);
      });
      store_row(row_of(g.dq, at.batch, t, head), dq, a.dim);
    }
  for (int64_t key = 0; key < a.keys; ++key) {
    store_row(row_of(g.dk, at.batch, key, at.kv_head), dk + key * a.dim, a.dim);
    store_row(row_of(g.dv, at.batch, key, at.kv_head), dv + key * a.value_dim, a.value_dim);
  }
}

template <class T>
int64_t block_scores_scratch(const AttentionArgs<T>& a) {  // a query's best of each block for one head
  return (a.keys + block_rows - 1) / block_rows * int64_t(sizeof(Wide<T>));
}

template <class T>
void block_scores(const AttentionArgs<T>& a, Wide<T>* best, int64_t task, void* scratch) {
  constexpr Wide<T> infinity = std::numeric_limits<Wide<T>>::infinity();
  const Task at(a, task);
  const Visible visible = visible_of(a, at.batch, at.kv_head);
  auto* of_head = static_cast<Wide<T>*>(scratch);
  for (int64_t t = 0; t < a.queries; ++t) {
    Wide<T>* of_query = best + (task * a.queries + t) * visible.blocks;
    std::fill_n(of_query, visible.blocks, -infinity);
    for (int64_t head = at.first_head; head < at.last_head; ++head) {
      std::fill_n(of_head, visible.blocks, -infinity);
      each_visible(visible, t, [&](int64_t key) {
        Wide<T>& block = of_head[key / block_rows];
        block = std::max(block, a.scale * dot(row_of(a.q, at.batch, t, head), row_of(a.k, at.batch, key, at.kv_head), a.dim));
      });
      const Wide<T> most = *std::max_element(of_head, of_head + visible.blocks);
      for (int64_t block = 0; block < visible.blocks; ++block)
        if (of_head[block] != -infinity) of_query[block] = std::max(of_query[block], of_head[block] - most);
    }
  }
}

constexpr int64_t panel_columns = 64;

// Where element (k, n) of a packed matrix lies.
template <class T>
int64_t packed_index(int64_t n, int64_t k, int64_t n_count, int64_t k_count) {
  const int64_t first = n / panel_columns * panel_columns, columns = std::min(panel_columns, packed_columns(n_count) - first);
  if (sizeof(T) != 2) return first * k_count + k * columns + n - first;
  return first * ((k_count + 1) / 2 * 2) + k / 2 * 2 * columns + 2 * (n - first) + k % 2;
}

template <class T>
void pack(const PackArgs<T>& a) {
  std::fill_n(a.out, packed_elements<T>(a.n, a.k), T(0));
  for (int64_t k = 0; k < a.k; ++k)
    for (int64_t n = 0; n < a.n; ++n) store(a.out[packed_index<T>(n, k, a.n, a.k)], a.w[k * a.k_step + n * a.n_step]);
}

template <class T>
int64_t no_scratch(const T&) {
  return 0;
}

template <class T>
void grouped(const GroupedArgs<T>& a, int64_t task, void*) {
  int64_t group = 0, first = a.offset[0];
  for (; group < a.groups; first = a.offset[++group]) {
    const int64_t tasks = (a.offset[group + 1] - first + group_rows - 1) / group_rows;
    if (task < tasks) break;
    task -= tasks;
  }
  const T* w = a.w + group * packed_elements<T>(a.n, a.k);
  const int64_t begin = first + task * group_rows, end = std::min(a.offset[group + 1], begin + group_rows);
  for (int64_t i = begin; i < end; ++i) {
    const T* x = a.a + (a.row ? a.row[i] : i) * a.lda;
    for (int64_t n = 0; n < a.n; ++n) {
      Wide<T> sum = 0;
      for (int64_t k = 0; k < a.k; ++k) sum += load(x[k]) * load(w[packed_index<T>(n, k, a.n, a.k)]);
      store(a.c[i * a.ldc + n], sum);
    }
  }
}

template <class T>
void grouped_outer(const GroupedOuterArgs<T>& a, int64_t group, void*) {
  Wide<T>* c = a.c + group * a.m * a.n;
  std::fill_n(c, a.m * a.n, Wide<T>(0));
  for (int64_t i = a.offset[group]; i < a.offset[group + 1]; ++i)
    for (int64_t m = 0; m < a.m; ++m) add_scaled(c + m * a.n, load(a.a[i * a.lda + m]), a.b + (a.row ? a.row[i] : i) * a.ldb, a.n);
}

template <class T>
struct Softmax {  // of a row of logits / temperature
  const T* x;
  Wide<T> factor, log_sum;
  Softmax(const T* x_, int64_t n, Wide<T> temperature) : x(x_), factor(1 / temperature) {
    Wide<T> most = -std::numeric_limits<Wide<T>>::infinity(), sum = 0;
    for (int64_t i = 0; i < n; ++i) most = std::max(most, load(x[i]) * factor);
    for (int64_t i = 0; i < n; ++i) sum += std::exp(load(x[i]) * factor - most);
    log_sum = most + std::log(sum);
  }
  Wide<T> log_of(int64_t i) const { return load(x[i]) * factor - log_sum; }
};

// log(beta p + (1 - beta) q) from the logarithms.
template <class F>
F log_mixture(F log_p, F log_q, F beta) {
  const F most = std::max(log_p, log_q);
  return most + std::log(beta * std::exp(log_p - most) + (1 - beta) * std::exp(log_q - most));
}

template <class T>
void token_loss_row(const TokenLossArgs<T>& a, int64_t row) {
  using F = Wide<T>;
  T* x = a.logits + row * a.ld;
  F* loss = a.loss + row * 4;
  std::fill_n(loss, 4, F(0));
  const F weight = a.row_weight ? a.row_weight[row] : 1;
  const Softmax<T> plain(x, a.vocab, 1), q(x, a.vocab, a.temperature);
  const bool distils = a.share[1] != 0 || a.share[2] != 0 || a.share[3] != 0;
  const Softmax<T> p(distils ? a.teacher + row * a.ld_teacher : x, a.vocab, a.temperature);
  F target_mass = 0;
  for (int64_t i = 0; i < a.targets && a.share[0] != 0; ++i) {
    const int64_t target = a.target[row * a.targets + i];
    if (target < 0) continue;
    const F w = a.target_weight ? a.target_weight[row * a.targets + i] : 1;
    loss[0] -= w * plain.log_of(target);
    target_mass += w;
  }
  F student_part = 0;  // (1 - beta) KL(q || m)
  for (int64_t i = 0; i < a.vocab && distils; ++i) {
    const F log_p = p.log_of(i), log_q = q.log_of(i), log_m = log_mixture(log_p, log_q, a.beta);
    if (a.share[1] != 0) loss[1] += std::exp(log_p) * (log_p - log_q);
    if (a.share[2] != 0) loss[2] += std::exp(log_q) * (log_q - log_p);
    if (a.share[3] == 0) continue;
    loss[3] += a.beta * std::exp(log_p) * (log_p - log_m);
    student_part += (1 - a.beta) * std::exp(log_q) * (log_q - log_m);
  }
  loss[3] += student_part;
  const auto gradient = [&](int64_t i) {
    F g = a.share[0] != 0 ? a.share[0] * target_mass * std::exp(plain.log_of(i)) : 0;
    for (int64_t j = 0; j < a.targets && a.share[0] != 0; ++j)
      if (a.target[row * a.targets + j] == i) g -= a.share[0] * (a.target_weight ? a.target_weight[row * a.targets + j] : 1);
    if (!distils) return weight * g;
    const F log_p = p.log_of(i), log_q = q.log_of(i), p_i = std::exp(log_p), q_i = std::exp(log_q);
    F d = a.share[1] * (q_i - p_i) + a.share[2] * q_i * (log_q - log_p - loss[2]);
    if (a.share[3] != 0) d += a.share[3] * q_i * ((1 - a.beta) * (log_q - log_mixture(log_p, log_q, a.beta)) - student_part);
    return weight * (g + d * q.factor);
  };
  for (int64_t i = 0; i < a.vocab; ++i) store(x[i], gradient(i));
}

template <class T>
void token_loss(const TokenLossArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) token_loss_row(a, row);
}

template <class T>
void rms_norm(const RmsNormArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const T* x = a.x + row * a.ldx;
    const Wide<T> rms = a.rms[row] = 1 / std::sqrt(dot(x, x, a.n) / Wide<T>(a.n) + a.eps);
    for (int64_t i = 0; i < a.n; ++i) store(a.out[row * a.ldout + i], load(x[i]) * rms * a.weight[i]);
  }
}

// dx = rms (w dout - x rms^2 mean(x w dout)), dweight = sum over rows of dout x rms.
template <class T>
void rms_norm_backward(const RmsNormGradArgs<T>& a, int64_t first, int64_t last, Wide<T>* dweight) {
  for (int64_t row = first; row < last; ++row) {
    const T *x = a.x + row * a.ldx, *dout = a.dout + row * a.lddout;
    const Wide<T> rms = a.rms[row];
    Wide<T> sum = 0;
    for (int64_t i = 0; i < a.n; ++i) sum += load(x[i]) * load(dout[i]) * a.weight[i];
    const Wide<T> share = rms * rms * sum / Wide<T>(a.n);
    for (int64_t i = 0; i < a.n; ++i) {
      dweight[i] += load(dout[i]) * load(x[i]) * rms;
      store(a.dx[row * a.lddx + i], rms * (load(dout[i]) * a.weight[i] - load(x[i]) * share));
    }
  }
}

template <class T>
void swiglu(const SwigluArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t i = 0; i < a.n; ++i) {
      const Wide<T> x = load(a.gate[row * a.ld + i]);
      store(a.out[row * a.ldout + i], x / (1 + std::exp(-x)) * load(a.up[row * a.ld + i]));
    }
}

template <class T>
void swiglu_backward(const SwigluGradArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t i = 0; i < a.n; ++i) {
      const Wide<T> x = load(a.gate[row * a.ld + i]), up = load(a.up[row * a.ld + i]), dout = load(a.dout[row * a.lddout + i]);
      const Wide<T> sigmoid = 1 / (1 + std::exp(-x));
      store(a.dgate[row * a.ldgrad + i], dout * up * sigmoid * (1 + x * (1 - sigmoid)));
      store(a.dup[row * a.ldgrad + i], dout * x * sigmoid);
    }
}

template <class T>
void gather_choices(const ChoicesArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t i = 0; i < a.n; ++i) {
      Wide<T> sum = 0;
      for (int64_t choice = row * a.active; choice < (row + 1) * a.active; ++choice)
        sum += (a.weight ? a.weight[choice] : 1) * load(a.sorted[a.place[choice] * a.n + i]);
      store(a.rows[row * a.n + i], sum);
    }
}

template <class T>
void spread_choices(const ChoicesArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t choice = first * a.active; choice < last * a.active; ++choice)
    for (int64_t i = 0; i < a.n; ++i)
      store(a.sorted[a.place[choice] * a.n + i], (a.weight ? a.weight[choice] : 1) * load(a.rows[choice / a.active * a.n + i]));
}

template <class T>
void weigh_choices(const ChoicesArgs<T>& a, const T* x, Wide<T>* dot_of, int64_t first, int64_t last) {
  for (int64_t choice = first * a.active; choice < last * a.active; ++choice) {
    T* row = a.sorted + a.place[choice] * a.n;
    dot_of[choice] = dot(x + a.place[choice] * a.n, row, a.n);
    for (int64_t i = 0; i < a.n; ++i) store(row[i], (a.weight ? a.weight[choice] : 1) * load(row[i]));
  }
}

template <class T>
void rope(const RopeArgs<T>& a, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t head = 0; head < a.heads; ++head) {
      const T* x = a.x + row * a.x_row + head * a.x_head;
      T* out = a.out + row * a.out_row + head * a.out_head;
      for (int64_t i = 0; i < a.half; ++i) {
        const int64_t one = a.pairs ? 2 * i : i, two = a.pairs ? 2 * i + 1 : i + a.half, angle = row % a.times * a.half + i;
        const Wide<T> c = a.cos[angle], s = a.back ? -a.sin[angle] : a.sin[angle], u = load(x[one]), v = load(x[two]);
        store(out[one], u * c - v * s);
        store(out[two], v * c + u * s);
      }
    }
}

template <class T>
int64_t product_peak(int64_t rounds) {
  Wide<T> chain[8] = {};
  for (int64_t r = 0; r < rounds; ++r)
    for (Wide<T>& c : chain) c = c * Wide<T>(0.5) + Wide<T>(0.5);
  asm volatile("" : : "r"(chain) : "memory");  // the result counts as used
  return rounds * 8 * 2;
}

template <class T>
TrainingKernels<T> all() {
  return {.attention = attention<T>,
          .attention_backward = attention_backward<T>,
          .attention_scratch = attention_scratch<T>,
          .attention_backward_scratch = attention_backward_scratch<T>,
          .block_scores = block_scores<T>,
          .block_scores_scratch = block_scores_scratch<T>,
          .pack = pack<T>,
          .grouped = grouped<T>,
          .grouped_outer = grouped_outer<T>,
          .grouped_scratch = no_scratch<GroupedArgs<T>>,
          .grouped_outer_scratch = no_scratch<GroupedOuterArgs<T>>,
          .gather_choices = gather_choices<T>,
          .spread_choices = spread_choices<T>,
          .weigh_choices = weigh_choices<T>,
          .token_loss = token_loss<T>,
          .rms_norm = rms_norm<T>,
          .rms_norm_backward = rms_norm_backward<T>,
          .swiglu = swiglu<T>,
          .swiglu_backward = swiglu_backward<T>,
          .rope = rope<T>,
          .product_peak = product_peak<T>};
}

}  // namespace

void fill_scalar_training(TrainingTable& t) { t = {.f64 = all<double>(), .f32 = all<float>(), .bf16 = all<uint16_t>()}; }

}  // namespace hadal
