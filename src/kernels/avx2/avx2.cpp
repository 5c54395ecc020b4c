#include "kernels/kernels.h"

void hadal::fill_avx2(Kernels&) {}
