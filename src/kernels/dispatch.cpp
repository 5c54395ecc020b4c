// Which kernels run: the best level that the CPU and the operating system both support, unless HADAL_ISA asks for a lower one.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/kernels.h"
#include "kernels/training.h"

namespace hadal {
namespace {

constexpr const char* names[] = {"scalar", "avx2", "avx512", "vnni", "amx"};

bool has_f16c() {  // clang 14 does not know the name; its registers are those of avx2, which are asked for with it
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

// Tiles are saved only for processes that ask Linux for it; it then holds for all their threads.
bool may_use_tiles() {
  constexpr unsigned tile_feature = 1u << 24, tile_products_int8 = 1u << 25, saved_by_system = 3u << 17;  // XCR0: TILECFG and TILEDATA
  constexpr long request_permission = 0x1023, tile_data = 18;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tile_feature) == 0 || (d & tile_products_int8) == 0) return false;
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & saved_by_system) != saved_by_system) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

// __builtin_cpu_supports also reads XCR0: a feature whose registers the system does not save counts as absent.
Isa best_isa() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (!avx2) return Isa::scalar;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (!avx512) return Isa::avx2;
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  static const bool tiles = may_use_tiles();
  return tiles ? Isa::amx : Isa::vnni;
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
  if (isa >= Isa::vnni) {
    fill_vnni_attend(k);
    fill_vnni_packed(k);
  }
  if (isa >= Isa::amx) fill_amx_packed(k);
  k.name = names[int(isa)];
  return k;
}

bool parse_isa(const char* name, Isa* isa) {
  for (const Isa level : isa_levels) {
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

TrainingTable training_kernels_for(Isa isa) {
  TrainingTable t{};
  fill_scalar_training(t);
  if (isa >= Isa::avx2) fill_avx2_training(t);
  if (isa >= Isa::avx512) fill_avx512_training(t);
  if (isa >= Isa::vnni && __builtin_cpu_supports("avx512bf16")) fill_bf16_training(t);
  return t;
}

const TrainingTable& training_kernels() {
  static const TrainingTable chosen = training_kernels_for(chosen_isa());
  return chosen;
}

}  // namespace hadal
