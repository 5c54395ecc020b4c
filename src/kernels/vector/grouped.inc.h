// Products of rows sorted by expert, for every vector level; included after product.inc.h.
// A task of up to 128 rows goes through the panels of its expert's packed weights, which stay in L2 while the rows are there; a panel of 64
// columns streams past six rows at a time. Few rows use tiles of fewer rows, so the cost falls with the rows down to reading the weights
// once.

constexpr int64_t panel_columns = 64;

// Square blocks of width x width, lanes along n: as they lie, or transposed in registers.
template <class Units>
void pack(const PackArgs<typename Units::Value>& a) {
  const int64_t depth = units_of<Units>(a.k);
  for (int64_t first = 0; first < a.n; first += panel_columns) {
    const int64_t left = padded(a.n) - first, columns = left < panel_columns ? left : panel_columns;
    float* panel = reinterpret_cast<float*>(a.out) + first * depth;
    for (int64_t k0 = 0; k0 < a.k; k0 += width)
      for (int64_t n0 = 0; n0 < columns; n0 += width) {
        Vec block[width];  // of k0 + i
        const float* w = a.w + k0 * a.k_step + (first + n0) * a.n_step;
        const int64_t k_left = a.k - k0, n_left = a.n - first - n0;
        const bool along_n = a.n_step == 1;
        const Part lanes(along_n ? n_left : k_left);
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i)
          block[i] = i < (along_n ? k_left : n_left) ? lanes.load(w + i * (along_n ? a.k_step : a.n_step)) : set(0);
        if (!along_n) transpose(block);
#pragma GCC unroll 16
        for (int i = 0; i < width; i += Units::values) {
          if (i >= k_left) break;
          Vec unit = block[i];
          if constexpr (Units::values == 2) unit = rounded_pair(unit, block[i + 1]);
          Whole{}.store(panel + (k0 + i) / Units::values * columns + n0, unit);
        }
      }
  }
}

template <class T>
int64_t grouped_scratch(const GroupedArgs<T>& a) {  // gathered rows, sums of a panel
  return group_rows * ((a.row ? units_of<UnitsOf<T>>(a.k) + 16 : 0) + (sizeof(T) == 2 ? panel_columns : 0)) * 4;
}

template <class T>
void grouped(const GroupedArgs<T>& a, int64_t task, void* scratch) {
  using Units = UnitsOf<T>;
  int64_t group = 0;
  for (; group < a.groups; ++group) {
    const int64_t tasks = (a.offset[group + 1] - a.offset[group] + group_rows - 1) / group_rows;
    if (task < tasks) break;
    task -= tasks;
  }
  const int64_t begin = a.offset[group] + task * group_rows, left = a.offset[group + 1] - begin,
                rows = left < group_rows ? left : group_rows;
  Room room(scratch);
  float* sums = sizeof(T) == 2 ? room.units(group_rows * panel_columns) : nullptr;
  const T* x = a.row ? nullptr : a.a + begin * a.lda;
  int64_t stride = a.lda;
  if (a.row) {
    stride = units_of<Units>(a.k) * Units::values;
    T* gathered = reinterpret_cast<T*>(room.units(group_rows * stride / Units::values));
    for (int64_t i = 0; i < rows; ++i) __builtin_memcpy(gathered + i * stride, a.a + a.row[begin + i] * a.lda, size_t(a.k) * sizeof(T));
    x = gathered;
  }
  const int64_t units = units_of<Units>(a.k);
  const T* w = a.w + group * packed_elements<T>(a.n, a.k);
  for (int64_t first = 0; first < a.n; first += panel_columns) {
    const int64_t n = a.n - first < panel_columns ? a.n - first : panel_columns, columns = padded(n);
    T* c = a.c + begin * a.ldc + first;
    const bool direct = sizeof(T) == 4;
    product<Units>({.c = direct ? reinterpret_cast<float*>(c) : sums,
                    .a = x,
                    .b = w + first * units * Units::values,
                    .m = rows,
                    .n = n,
                    .units = units,
                    .a_row = stride * int64_t(sizeof(T)),
                    .a_unit = 4,
                    .b_unit = columns * 4,
                    .ldc = direct ? a.ldc : panel_columns,
                    .half = a.k % Units::values != 0});
    for (int64_t i = 0; i < rows && !direct; ++i)
      each_vector(n, [&](auto lanes, int64_t d, int)
                         ALWAYS_INLINE { store_narrow(lanes, c + i * a.ldc + d, lanes.load(sums + i * panel_columns + d)); });
  }
}

constexpr int64_t outer_rows = 128;  // at a time: both sides stay in L2

template <class T>
int64_t grouped_outer_scratch(const GroupedOuterArgs<T>& a) {
  return outer_rows / UnitsOf<T>::values * 4 * (2 * padded(a.m) + padded(a.n)) + 3 * 64;
}

template <class T>
void grouped_outer(const GroupedOuterArgs<T>& a, int64_t group, void* scratch) {
  using Units = UnitsOf<T>;
  constexpr int64_t units = outer_rows / Units::values;
  Room room(scratch);
  float *left_rows = room.units(units * padded(a.m)), *left = room.units(units * padded(a.m)), *right = room.units(units * padded(a.n));
  float* c = a.c + group * a.m * a.n;
  const int64_t end = a.offset[group + 1];
  if (end == a.offset[group]) return clear(c, a.m * a.n);
  for (int64_t begin = a.offset[group]; begin < end; begin += outer_rows) {
    const int64_t rows = end - begin < outer_rows ? end - begin : outer_rows, count = units_of<Units>(rows);
    // a by columns: a tile of c reads few of them, each in order.
    pack_rows<Units>(left_rows, a.a + begin * a.lda, a.lda, rows, a.m);
    transpose_units(left, units, reinterpret_cast<const char*>(left_rows), padded(a.m) * 4, count, a.m);
    pack_rows<Units>(right, a.row ? a.b : a.b + begin * a.ldb, a.ldb, rows, a.n, a.row ? a.row + begin : nullptr);
    product<Units>({.c = c,
                    .a = left,
                    .b = right,
                    .m = a.m,
                    .n = a.n,
                    .units = count,
                    .a_row = units * 4,
                    .a_unit = 4,
                    .b_unit = padded(a.n) * 4,
                    .ldc = a.n,
                    .add = begin > a.offset[group]});
  }
}
