// Any bytes as the weights of a small packed model: an Error, or a model whose every row can be read and multiplied.
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "infer/model.h"
#include "ops/ops.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  ModelConfig c;
  c.family = "llama", c.vocab = 17, c.dim = 32, c.layers = 1, c.context = 16, c.heads = c.kv_heads = 1, c.head_dim = 32, c.ffn_dim = 33;
  c.attention_scale = 1;
  size_t at = 0;
  const auto take = [&](void* to, size_t count) {  // zeros behind the end
    const size_t there = std::min(count, size - at);
    std::memset(to, 0, count);
    std::memcpy(to, data + at, there);
    at += there;
  };
  try {
    Checkpoint checkpoint;
    Params<int> params = make_params<int>(c);
    const auto storage = std::make_shared<std::vector<std::vector<uint64_t>>>();
    const auto add = [&](const std::string& name, DType type, std::vector<int64_t> shape, bool random) {
      StoredTensor t{type, std::move(shape), {}, nullptr, 0};
      t.bytes = size_t(bytes_of(type, t.count()));
      storage->emplace_back(t.bytes / 8 + 1);
      if (random) take(storage->back().data(), t.bytes);
      t.data = reinterpret_cast<const std::byte*>(storage->back().data());
      checkpoint.tensors[name] = std::move(t);
    };
    storage->reserve(64);
    for_each_param(c, params, [&](const std::string& name, Shape shape, Role role, int&) {
      if (role != Role::matrix && role != Role::embedding) return add(name, DType::f32, {shape.rows}, false);
      uint8_t choice[2];
      take(choice, 2);
      constexpr int64_t blocks[] = {2048, 1088, 832, 576, 64, 0};
      const int64_t rows = padded_rows(shape.rows), wrong = choice[1] % 8 == 0 ? 1 : 0;
      add(name, DType::u8, {rows / 16 + wrong, blocks[choice[0] % 6]}, true);
      add(name + "_scale", DType::f32, {rows}, true);
      add(name + "_sum", DType::i32, {rows - (choice[1] % 8 == 1)}, true);
    });
    checkpoint.bytes.push_back(storage);
    const Model model = load_model(c, checkpoint);
    const Weight& w = model.params.embed;
    std::vector<float> row(size_t(c.dim)), out(size_t(c.vocab));
    const int32_t last = int32_t(c.vocab - 1);
    embed({row.data(), 1, c.dim, c.dim}, w, {&last, 1});
    for (float& v : row) v = 1;
    CodeRoom room;
    matmul({out.data(), 1, c.vocab, c.vocab}, quantize(Mat<float>{row.data(), 1, c.dim, c.dim}, room), w);
  } catch (const Error&) {
  }
  return 0;
}
