// dump_tensors PATH OUT: opens a checkpoint as the engine does, prints a line "name dtype side side ..." per tensor, sorted by name,
// and writes all their values to OUT as float32, one tensor after the other. For tests/python/test_files.py.
#include <cstdio>
#include <fstream>

#include "core/error.h"
#include "model/checkpoint.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: dump_tensors PATH OUT\n");
    return 2;
  }
  try {
    const hadal::Checkpoint checkpoint = hadal::open_checkpoint(argv[1]);
    std::ofstream out(argv[2], std::ios::binary);
    for (const auto& [name, tensor] : checkpoint.tensors) {
      fmt::print("{} {} {}\n", name, hadal::name_of(tensor.dtype), fmt::join(tensor.shape, " "));
      std::vector<float> values(size_t(tensor.count()));
      hadal::to_f32(tensor, 0, tensor.count(), values.data());
      out.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(float)));
    }
    if (!out.flush()) throw hadal::Error("cannot write {}", argv[2]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
