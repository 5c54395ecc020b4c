#include "infer/expert_store.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/memory.h"

namespace hadal {
namespace {

constexpr int64_t page = DiskReader::alignment;
constexpr auto patience = std::chrono::seconds(60);  // a disk that is silent for so long will not answer

struct Span {                                         // of addresses
  const std::byte *first = nullptr, *last = nullptr;  // last: one behind
  void add(const void* at, int64_t bytes) {
    const auto* begin = static_cast<const std::byte*>(at);
    if (!begin) return;
    if (!first || begin < first) first = begin;
    if (begin + bytes > last) last = begin + bytes;
  }
  int64_t bytes() const { return last - first; }
};

Span span_of(const Mlp<Weight>& expert) {
  Span span;
  for (const Weight* w : {&expert.gate, &expert.up, &expert.down}) {
    span.add(w->data, is_packed(w->dtype) ? packed_bytes(w->dtype, w->rows, w->cols) : bytes_of(w->dtype, w->rows * w->cols));
    span.add(w->scale, padded_rows(w->rows) * 4);
    span.add(w->sum, padded_rows(w->rows) * 4);
  }
  return span;
}

int64_t bytes_of(const Mlp<Weight>& expert) { return expert.gate.bytes() + expert.up.bytes() + expert.down.bytes(); }

int64_t round_up(int64_t bytes) { return (bytes + page - 1) / page * page; }

template <class F>
void for_each_moe(const Model& model, F f) {
  for (size_t l = 0; l < model.params.blocks.size(); ++l)
    if (const auto* moe = std::get_if<Moe<Weight>>(&model.params.blocks[l].ffn)) f(int64_t(l), *moe);
}

struct Home {  // where an expert lies
  int file;
  int64_t offset, bytes;   // aligned; what is read
  const std::byte* first;  // the address that the file's byte `offset` is mapped to
};

enum class Arrival { reading, here, failed };

}  // namespace

struct ExpertStore::State {
  class Layer : public ExpertSource {
   public:
    Layer(State& state, int64_t layer, const Moe<Weight>& weights) : state_(state), layer_(layer), weights_(weights) {}
    void begin(std::span<const int32_t> experts) override { state_.begin(*this, experts); }
    std::vector<ReadyExpert> next() override { return state_.next(*this); }

    State& state_;
    int64_t layer_;
    const Moe<Weight>& weights_;
    std::vector<Home> homes;
    std::deque<Mlp<Weight>> handed_out;  // weights that lie in slots
  };

  struct Slot {
    Arrival arrival = Arrival::here;
    bool foreseen = false;  // brought by the look-ahead and not used yet
    std::string error;
  };

  ExpertCache cache;
  int64_t slot_size;
  Buffer arena;
  std::vector<std::unique_ptr<Layer>> layers;  // by layer; null where there are no experts
  ExpertCounts counts;

  // Of the layer at work.
  std::vector<int32_t> unplaced;                    // experts that have no slot yet
  std::vector<std::pair<int32_t, int32_t>> placed;  // (expert, slot), pinned, not handed out
  std::vector<int32_t> in_use;                      // pinned slots of the experts handed out last

  std::mutex mutex;  // guards the slots
  std::condition_variable arrived;
  std::vector<Slot> slots;
  DiskReader reader;  // last: its thread ends before what it reports to

  State(const Model& model, int64_t slot_count, int64_t bytes, Eviction eviction, DiskReader::Path path)
      : cache(model.config.layers, model.config.moe.experts, slot_count, eviction),
        slot_size(bytes),
        arena(size_t(slot_count * bytes), "the experts"),
        layers(size_t(model.config.layers)),
        slots(size_t(slot_count)),
        reader(path) {
    std::vector<int> numbers(model.files.size(), -1);
    for_each_moe(model, [&](int64_t l, const Moe<Weight>& moe) {
      auto layer = std::make_unique<Layer>(*this, l, moe);
      for (size_t e = 0; e < moe.experts.size(); ++e)
        layer->homes.push_back(home_of(model, moe.experts[e], numbers, fmt::format("expert {} of layer {}", e, l)));
      layers[size_t(l)] = std::move(layer);
    });
  }

  Home home_of(const Model& model, const Mlp<Weight>& expert, std::vector<int>& numbers, const std::string& what) {
    const Span span = span_of(expert);
    for (size_t i = 0; i < model.files.size(); ++i) {
      const std::span<const std::byte> mapped = model.files[i]->bytes();
      if (span.first < mapped.data() || span.last > mapped.data() + mapped.size()) continue;
      if (numbers[i] < 0) numbers[i] = reader.open(model.files[i]->path());
      const int64_t offset = (span.first - mapped.data()) / page * page, bytes = span.last - mapped.data() - offset;
      if (round_up(bytes) > slot_size)
        throw Error(
            "{} does not lie together in {}: {} bytes from its first to its last, expected about {}; write the model anew with `hadal "
            "quantize`",
            what, model.files[i]->path().string(), bytes, bytes_of(expert));
      return {numbers[i], offset, bytes, mapped.data() + offset};
    }
    throw Error("{} does not lie in one file as the kernels read it: experts are read from disk only in packed or 16-bit safetensors",
                what);
  }

  std::byte* memory_of(int32_t slot) const { return arena.data() + slot * slot_size; }

  void start_reading(int64_t layer, int32_t expert, int32_t slot, bool urgent) {
    const Home& home = layers[size_t(layer)]->homes[size_t(expert)];
    {
      const std::lock_guard lock(mutex);
      slots[size_t(slot)] = {Arrival::reading, !urgent, {}};
    }
    reader.read({.file = home.file,
                 .offset = home.offset,
                 .bytes = home.bytes,
                 .to = memory_of(slot),
                 .urgent = urgent,
                 .done = [this, slot](std::string error) {
                   const std::lock_guard lock(mutex);
                   slots[size_t(slot)].arrival = error.empty() ? Arrival::here : Arrival::failed;
                   slots[size_t(slot)].error = std::move(error);
                   arrived.notify_one();
                 }});
  }

  void release_in_use() {
    for (const int32_t slot : in_use) cache.unpin(slot);
    in_use.clear();
  }

  void begin(Layer& layer, std::span<const int32_t> experts) {
    release_in_use();
    for (const auto& [expert, slot] : placed) cache.unpin(slot);  // of a pass that an error ended
    placed.clear();
    unplaced.clear();
    for (const int32_t expert : experts) {
      cache.use(layer.layer_, expert);
      ++counts.used;
      const int32_t slot = found(layer.layer_, expert);
      if (slot < 0) {
        unplaced.push_back(expert);
        continue;
      }
      ++counts.hits;
      cache.pin(slot);
      placed.emplace_back(expert, slot);
      const std::lock_guard lock(mutex);
      if (std::exchange(slots[size_t(slot)].foreseen, false)) ++counts.foreseen;
    }
    for (const auto& [expert, slot] : placed) reader.hurry(memory_of(slot));
    place_what_fits(layer);
  }

  int32_t found(int64_t layer, int32_t expert) {  // what failed to come is read again
    const int32_t slot = cache.find(layer, expert);
    if (slot < 0) return slot;
    const std::lock_guard lock(mutex);
    if (slots[size_t(slot)].arrival != Arrival::failed) return slot;
    slots[size_t(slot)] = {};
    cache.forget(slot);
    return -1;
  }

  void place_what_fits(Layer& layer) {
    while (!unplaced.empty()) {
      const int32_t expert = unplaced.front(), slot = take_slot(layer.layer_, expert);
      if (slot < 0) return;
      cache.pin(slot);
      placed.emplace_back(expert, slot);
      unplaced.erase(unplaced.begin());
      start_reading(layer.layer_, expert, slot, true);
    }
  }

  // A slot that the disk is still writing to is not given away: pinned by its read, so to speak.
  int32_t take_slot(int64_t layer, int32_t expert) {
    std::vector<int32_t> busy;
    {
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < slots.size(); ++i)
        if (slots[i].arrival == Arrival::reading) busy.push_back(int32_t(i));
    }
    for (const int32_t slot : busy) cache.pin(slot);
    const int32_t slot = cache.place(layer, expert);
    for (const int32_t held : busy) cache.unpin(held);
    return slot;
  }

  // Weights whose bytes lie in the slot instead of the mapped file.
  Mlp<Weight> moved(const Mlp<Weight>& expert, const Home& home, int32_t slot) const {
    Mlp<Weight> copy = expert;
    std::byte* at = memory_of(slot);
    for (Weight* w : {&copy.gate, &copy.up, &copy.down}) {
      w->data = at + (w->data - home.first);
      if (w->scale) w->scale = reinterpret_cast<const float*>(at + (reinterpret_cast<const std::byte*>(w->scale) - home.first));
      if (w->sum) w->sum = reinterpret_cast<const int32_t*>(at + (reinterpret_cast<const std::byte*>(w->sum) - home.first));
    }
    return copy;
  }

  template <class Condition>
  std::unique_lock<std::mutex> wait(Layer& layer, Condition condition) {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex);
    if (!arrived.wait_for(lock, patience, condition))
      throw Error("an expert of layer {} has not come from the disk within {} s", layer.layer_, patience.count());
    counts.seconds_waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return lock;
  }

  std::vector<ReadyExpert> next(Layer& layer) {
    release_in_use();
    place_what_fits(layer);
    std::vector<ReadyExpert> ready;
    layer.handed_out.clear();
    while (placed.empty() && !unplaced.empty()) {  // every slot is being read into for the look-ahead
      wait(layer, [&] { return std::ranges::any_of(slots, [](const Slot& s) { return s.arrival != Arrival::reading; }); });
      place_what_fits(layer);
    }
    if (placed.empty()) return ready;
    const auto lock = wait(layer, [&] {
      return std::ranges::any_of(placed, [&](const auto& p) { return slots[size_t(p.second)].arrival != Arrival::reading; });
    });
    std::erase_if(placed, [&](const auto& p) {
      const auto& [expert, slot] = p;
      if (slots[size_t(slot)].arrival != Arrival::here) return false;
      const Mlp<Weight>& w =
          layer.handed_out.emplace_back(moved(layer.weights_.experts[size_t(expert)], layer.homes[size_t(expert)], slot));
      ready.push_back({expert, {w.gate, w.up, w.down}});
      in_use.push_back(slot);
      return true;
    });
    if (ready.empty()) fail(layer);
    return ready;
  }

  // Called with the lock held: all that has arrived is bad news.
  [[noreturn]] void fail(Layer& layer) {
    const auto bad = std::ranges::find_if(placed, [&](const auto& p) { return slots[size_t(p.second)].arrival == Arrival::failed; });
    const auto [expert, slot] = *bad;
    const std::string error = std::move(slots[size_t(slot)].error);
    slots[size_t(slot)] = {};
    cache.unpin(slot);
    cache.forget(slot);
    placed.erase(bad);
    throw Error("expert {} of layer {}: {}", expert, layer.layer_, error);
  }

  void foresee(int64_t layer, std::span<const int32_t> experts) {
    for (const int32_t expert : experts) {
      if (cache.find(layer, expert) >= 0) continue;
      const int32_t slot = take_slot(layer, expert);
      if (slot < 0) return;
      start_reading(layer, expert, slot, false);
    }
  }
};

int64_t ExpertStore::slot_bytes(const Model& model) {
  int64_t largest = 0;
  for_each_moe(model, [&](int64_t, const Moe<Weight>& moe) {
    for (const Mlp<Weight>& expert : moe.experts) largest = std::max(largest, bytes_of(expert));
  });
  return round_up(largest + largest / 64) + page;  // each of its tensors may be aligned, and the whole lie anywhere
}

ExpertStore::ExpertStore(const Model& model, int64_t arena_bytes, Eviction eviction, DiskReader::Path path) {
  const int64_t size = slot_bytes(model), least = model.config.moe.active + 2, slots = arena_bytes / size;
  if (slots < least)
    throw Error("too little memory for the experts: expected at least {} bytes, {} experts of {}, found {}", least * size, least, size,
                std::max<int64_t>(arena_bytes, 0));
  state_ = std::make_unique<State>(model, std::min(slots, model.config.layers * model.config.moe.experts), size, eviction, path);
}

ExpertStore::~ExpertStore() = default;
ExpertSource& ExpertStore::layer(int64_t layer) { return *state_->layers[size_t(layer)]; }
void ExpertStore::foresee(int64_t layer, std::span<const int32_t> experts) { state_->foresee(layer, experts); }
int64_t ExpertStore::slots() const { return state_->cache.slots(); }

ExpertCounts ExpertStore::counts() const {
  ExpertCounts counts = state_->counts;
  counts.bytes_read = state_->reader.bytes_read();
  counts.seconds_reading = state_->reader.seconds_reading();
  return counts;
}

int64_t routed_expert_bytes(const Model& model) {
  int64_t sum = 0;
  for_each_moe(model, [&](int64_t, const Moe<Weight>& moe) {
    for (const Mlp<Weight>& expert : moe.experts) sum += bytes_of(expert);
  });
  return sum;
}

}  // namespace hadal
