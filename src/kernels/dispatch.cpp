// Which kernels run: the best level that the CPU and the operating system both support, unless HADAL_ISA asks for a lower one.
#include <cpuid.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/kernels.h"

namespace hadal {
namespace {

constexpr Isa levels[] = {Isa::scalar, Isa::avx2, Isa::avx512};
constexpr const char* names[] = {"scalar", "avx2", "avx512"};

bool has_f16c() {  // clang 14 does not know the name; its registers are those of avx2, which are asked for with it
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

// __builtin_cpu_supports also reads XCR0: a feature whose registers the system does not save counts as absent.
Isa best_isa() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (!avx2) return Isa::scalar;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  return avx512 ? Isa::avx512 : Isa::avx2;
}

Kernels kernels_for(Isa isa) {
  Kernels k{};
  fill_scalar(k);
  if (isa >= Isa::avx2) fill_avx2(k);
  if (isa >= Isa::avx512) fill_avx512(k);
  fill_scalar_attend(k);
  if (isa >= Isa::avx2) fill_avx2_attend(k);
  fill_scalar_packed(k);
  if (isa >= Isa::avx2) fill_avx2_packed(k);
  if (isa >= Isa::avx512 && __builtin_cpu_supports("avx512vnni")) {
    fill_vnni_attend(k);
    fill_vnni_packed(k);
  }
  k.name = names[int(isa)];
  return k;
}

bool parse_isa(const char* name, Isa* isa) {
  for (const Isa level : levels) {
    if (std::strcmp(names[int(level)], name) != 0) continue;
    *isa = level;
    return true;
  }
  return false;
}

const char* unknown_isa() {
  const char* wish = std::getenv("HADAL_ISA");
  Isa isa;
  return wish && *wish && !parse_isa(wish, &isa) ? wish : nullptr;
}

Isa chosen_isa() {
  const char* wish = std::getenv("HADAL_ISA");
  Isa isa = best_isa();
  if (wish && parse_isa(wish, &isa)) return std::min(isa, best_isa());
  return isa;
}

const Kernels& kernels() {
  static const Kernels chosen = kernels_for(chosen_isa());
  return chosen;
}

}  // namespace hadal
