// Products of rows sorted by expert: the scalar kernels against plain sums, every level against those.
#include "training.h"

namespace hadal {
namespace {

template <class T>
std::vector<T> packed(const TrainingKernels<T>& kernels, const std::vector<Wide<T>>& w, int64_t groups, int64_t n, int64_t k,
                      bool by_column) {
  const int64_t each = packed_elements<T>(n, k);
  std::vector<T> out(size_t(groups * each), T(7));
  for (int64_t g = 0; g < groups; ++g)
    kernels.pack({.out = out.data() + g * each,
                  .w = w.data() + g * n * k,
                  .n = n,
                  .k = k,
                  .k_step = by_column ? 1 : n,
                  .n_step = by_column ? k : 1});
  return out;
}

class TrainingGrouped : public TrainingLevel {
 protected:
  // Product and outer product with groups of these sizes; `gathered`: the rows lie elsewhere.
  template <class T>
  void compare(const std::vector<int64_t>& sizes_of_groups, int64_t n, int64_t k, bool gathered = false) {
    const auto& kernels = table.of<T>();
    const auto name = [&] { return testing::Message() << n << " x " << k << ", " << sizeof(T) << " bytes"; };
    const int64_t groups = int64_t(sizes_of_groups.size());
    std::vector<int64_t> offset = {3}, row;  // the first rows belong to nobody
    for (const int64_t size : sizes_of_groups) offset.push_back(offset.back() + size);
    const int64_t rows = offset.back();
    for (int64_t i = 0; i < rows; ++i) row.push_back(i * 7 % std::max<int64_t>(rows, 1));
    const auto at = [&](int64_t i) { return gathered ? row[size_t(i)] : i; };
    const std::vector<T> a = random_numbers<T>(rows * (k + 1), 1), dc = random_numbers<T>(rows * n, 2);
    const auto w = converted<Wide<T>>(random_numbers<T>(groups * n * k, 3));  // what T can hold
    for (const bool by_column : {false, true}) {
      std::vector<T> c(size_t(rows * (n + 2)), T(7));
      std::vector<T> right = packed(kernels, w, groups, n, k, by_column);
      EXPECT_EQ(right, packed(reference.of<T>(), w, groups, n, k, by_column)) << name();
      right.reserve(1);  // no null pointer where k is 0
      const GroupedArgs<T> args{.c = c.data(),
                                .a = a.data(),
                                .w = right.data(),
                                .offset = offset.data(),
                                .groups = groups,
                                .n = n,
                                .k = k,
                                .lda = k + 1,
                                .ldc = n + 2,
                                .row = gathered ? row.data() : nullptr};
      Scratch scratch;
      for (int64_t task = 0; task < args.tasks(); ++task) kernels.grouped(args, task, scratch.of(kernels.grouped_scratch(args)));
      std::vector<double> want(c.size(), value_of(T(7)));
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t i = offset[size_t(g)]; i < offset[size_t(g) + 1]; ++i)
          for (int64_t col = 0; col < n; ++col) {
            double sum = 0;
            for (int64_t p = 0; p < k; ++p)
              sum += value_of(a[size_t(at(i) * (k + 1) + p)]) * double(w[size_t(g * n * k + (by_column ? col * k + p : p * n + col))]);
            want[size_t(i * (n + 2) + col)] = sum;
          }
      EXPECT_LE(error_of(c, want), tolerance<T>) << name();
    }
    std::vector<Wide<T>> outer(size_t(groups * n * k), 7), none;
    const GroupedOuterArgs<T> args{.c = outer.data(),
                                   .a = dc.data(),
                                   .b = a.data(),
                                   .offset = offset.data(),
                                   .groups = groups,
                                   .m = n,
                                   .n = k,
                                   .lda = n,
                                   .ldb = k + 1,
                                   .row = gathered ? row.data() : nullptr};
    Scratch scratch;
    for (int64_t task = 0; task < groups; ++task) kernels.grouped_outer(args, task, scratch.of(kernels.grouped_outer_scratch(args)));
    std::vector<double> want(outer.size(), 0.0);
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t i = offset[size_t(g)]; i < offset[size_t(g) + 1]; ++i)
        for (int64_t m = 0; m < n; ++m)
          for (int64_t p = 0; p < k; ++p)
            want[size_t((g * n + m) * k + p)] += value_of(dc[size_t(i * n + m)]) * value_of(a[size_t(at(i) * (k + 1) + p)]);
    EXPECT_LE(error_of(outer, want), 4e-6) << name() << ", outer";
  }
  void compare_all(const std::vector<int64_t>& sizes_of_groups, int64_t n, int64_t k, bool gathered = false) {
    compare<float>(sizes_of_groups, n, k, gathered);
    compare<uint16_t>(sizes_of_groups, n, k, gathered);
  }
};
INSTANTIATE_TEST_SUITE_P(Levels, TrainingGrouped, testing::ValuesIn(levels()), [](const auto& info) { return level_name(info); });

TEST_P(TrainingGrouped, Columns) {
  for (const int64_t n : {1, 7, 15, 16, 17, 31, 63, 64, 65, 127, 129, 200}) compare_all({5, 0, 13}, n, 24);
}
TEST_P(TrainingGrouped, Inner) {
  for (const int64_t k : {0, 1, 2, 7, 15, 16, 17, 31, 127, 129, 700}) compare_all({5, 6}, 24, k);
}
TEST_P(TrainingGrouped, Rows) {
  for (const int64_t rows : {0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 31, 127, 128, 129, 300}) compare_all({rows, 2, 0}, 33, 20);
}
TEST_P(TrainingGrouped, GatheredRows) { compare_all({70, 0, 1, 150}, 40, 33, true); }
TEST_P(TrainingGrouped, NoGroups) { compare_all({}, 16, 16); }

}  // namespace
}  // namespace hadal
