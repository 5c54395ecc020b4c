// What this machine offers: instruction sets, cores, memory, and measured limits that other figures are compared with.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace hadal {

struct IsaLevel {
  std::string name;      // scalar, avx2, avx512, vnni, amx
  bool usable, used;     // this CPU and operating system have it; the kernels run it
  double flops_one = 0;  // f32 operations per second of one thread, multiply and add counted as two; 0: not measured
  double ops_one = 0;    // the same of products of 8-bit integers
};

struct Machine {
  std::string cpu;                    // model name as the system gives it, "unknown" if it does not
  int cores = 0, threads = 0;         // physical cores this process may use; threads of the pool
  std::vector<IsaLevel> levels = {};  // in ascending order
  std::string isa = {};               // the level in use
  size_t memory = 0, available = 0;   // bytes, of this process's control group if that has less
  std::string huge_pages = {};        // the kernel's setting for transparent ones: always, madvise, never; "unknown"
  // Measured, best of several passes; 0: not measured.
  double read_one = 0, read_all = 0;    // bytes per second read from memory with one thread, with all threads of the pool
  double flops_one = 0, flops_all = 0;  // f32 operations per second at the level in use
  double ops_one = 0, ops_all = 0;      // the same of products of 8-bit integers
};

// measure: also runs the measurements, about two seconds in all. Takes up to 512 MB for them; Error when not even 64 MB are there.
Machine probe_machine(bool measure);

// The greater of each measured figure: what disturbs a measurement only makes it smaller.
void keep_best(Machine& machine, const Machine& again);

// Error when HADAL_ISA names no level: kernels cannot report it themselves.
void check_isa_wish();

}  // namespace hadal
