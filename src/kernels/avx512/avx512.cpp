#include "kernels/kernels.h"

void hadal::fill_avx512(Kernels&) {}
