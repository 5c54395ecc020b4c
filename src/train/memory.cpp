// glibc: memory comes from the heap alone, whose top is never given back.
#include "train/memory.h"

#include <malloc.h>

namespace hadal::train {

void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
}

}  // namespace hadal::train
