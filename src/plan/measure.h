// How fast a model reads prompts and writes replies on this machine, and in which phases the time goes.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/dtype.h"
#include "infer/profile.h"
#include "plan/limits.h"

namespace hadal {

struct Figure {
  bool prefill = false;                      // else decode
  int64_t tokens = 0, depth = 0, batch = 1;  // tokens: of each sequence; depth: rows of each in the cache when the clock starts
  double seconds = 0, slowest = 0;           // of the fastest and the slowest repetition
  Work work = {};                            // of a repetition
  double least = 0;                          // seconds that it takes at least: least_seconds(machine, work)
  double rate() const { return double(tokens * batch) / seconds; }
  double limit() const { return double(tokens * batch) / least; }
  double share() const { return least / seconds; }
  double spread() const { return slowest / seconds - 1; }
};

struct Breakdown {  // of the fastest of several passes
  Profile time;
  PhaseWork work;
};

struct MeasureOptions {
  DType cache = DType::f16;
  int64_t chunk = 512, repeats = 3;
  std::function<void()> between_passes = [] {};  // may throw to end the measurement
};

// Room that measuring this figure takes in the cache, in bytes.
int64_t cache_bytes(const Model& model, DType cache, const Figure& figure);

// Both want tokens, depth and batch in `figure`; measure() fills in seconds, slowest and work. One run before the repetitions is not
// counted. A prefill ends when the first token of the reply is chosen. A decode feeds random tokens, whatever was chosen: every sequence of
// a batch goes its own way, to its own experts. Its cache is filled with copies of one computed page of 64 rows, to read as much as after a
// prompt without computing one. Error: no memory for the cache.
void measure(const Model& model, const MeasureOptions& options, Figure& figure);

// One token of each sequence of a decode, or the passes of a prefill.
Breakdown profile(const Model& model, const MeasureOptions& options, const Figure& figure);

}  // namespace hadal
