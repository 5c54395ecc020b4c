// The last words of a broken invariant.
#include "core/error.h"

#include <cstdio>
#include <cstdlib>

void hadal::check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "hadal: internal error: %s does not hold (%s:%d)\n", condition, file, line);
  std::abort();
}
