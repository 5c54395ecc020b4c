// Loading packed models: what is wrong with them is named, weights are used where they are mapped, recipes give each part its type.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "infer/forward.h"
#include "infer/model.h"
#include "infer/stored_weights.h"
#include "model/presets.h"
#include "tests/infer/models.h"

namespace hadal {
namespace {

// A packed checkpoint in memory, every parameter random.
struct Made {
  ModelConfig config;
  Checkpoint checkpoint;
  std::vector<std::shared_ptr<std::vector<uint64_t>>> storage;  // aligned to 8 bytes

  std::byte* take(size_t bytes) {
    storage.push_back(std::make_shared<std::vector<uint64_t>>((bytes + 7) / 8));
    return reinterpret_cast<std::byte*>(storage.back()->data());
  }
  Made(const ModelConfig& c, const Recipe& recipe) : config(c) {
    Model model = random_model(config, recipe, 1);
    for_each_param(config, model.params, [&](const std::string& name, Shape shape, Role, Weight& w) {
      const auto add = [&](const std::string& tensor, DType type, std::vector<int64_t> sides, const void* from, size_t bytes) {
        std::byte* to = take(bytes);
        std::copy_n(static_cast<const std::byte*>(from), bytes, to);
        checkpoint.tensors[tensor] = {type, std::move(sides), {}, to, bytes};
      };
      if (!is_packed(w.dtype))
        return add(name, w.dtype, shape.cols == 1 ? std::vector{shape.rows} : std::vector{shape.rows, shape.cols}, w.data,
                   size_t(w.bytes()));
      const int64_t bytes = packed_bytes(w.dtype, w.rows, w.cols), block = info_of(w.dtype).block_bytes, rows = padded_rows(w.rows);
      add(name, DType::u8, {bytes / block, block}, w.data, size_t(bytes));
      add(name + "_scale", DType::f32, {rows}, w.scale, size_t(rows) * 4);
      add(name + "_sum", DType::i32, {rows}, w.sum, size_t(rows) * 4);
    });
  }
  std::string complaint() const {
    try {
      load_model(config, checkpoint);
    } catch (const Error& e) {
      return e.what();
    }
    return "loaded";
  }
  StoredTensor& operator[](const std::string& name) { return checkpoint.tensors.at(name); }
};

ModelConfig small(const std::string& name) {
  for (const NamedConfig& c : small_configs())
    if (c.name == name) return c.config;
  ADD_FAILURE() << name;
  return {};
}

const std::string up = "model.layers.1.mlp.up_proj.weight";

TEST(PackedModel, IsUsedWhereItIsMapped) {
  Made made(small("gqa"), {DType::w4, {}});
  Model model = load_model(made.config, made.checkpoint);
  for_each_param(made.config, model.params, [&](const std::string& name, Shape, Role, Weight& w) {
    EXPECT_EQ(w.data, made[name].data) << name;
    if (!is_packed(w.dtype)) return;
    EXPECT_EQ(reinterpret_cast<const std::byte*>(w.scale), made[name + "_scale"].data);
  });
}

TEST(PackedModel, WhatIsWrongIsNamed) {
  using testing::HasSubstr;
  const ModelConfig config = small("gqa");  // up: 45 x 30
  const Recipe recipe{DType::w4, {}};
  EXPECT_EQ(Made(config, recipe).complaint(), "loaded");
  const auto complaint = [&](auto change) {
    Made made(config, recipe);
    change(made);
    return made.complaint();
  };
  EXPECT_THAT(complaint([](Made& m) { m.checkpoint.tensors.erase(up + "_scale"); }),
              HasSubstr(up + "_scale is missing: expected F32 [48]"));
  EXPECT_THAT(complaint([](Made& m) { m.checkpoint.tensors.erase(up + "_sum"); }), HasSubstr(up + "_sum is missing: expected I32 [48]"));
  EXPECT_THAT(complaint([](Made& m) { m[up + "_sum"].dtype = DType::f32; }), HasSubstr(up + "_sum: expected I32 [48], found F32 [48]"));
  EXPECT_THAT(complaint([](Made& m) { m[up + "_scale"].shape[0] = 45; }), HasSubstr(up + "_scale: expected F32 [48], found F32 [45]"));
  EXPECT_THAT(complaint([](Made& m) { m[up].shape[0] = 2; }), HasSubstr(up + ": expected 3 blocks of W4 for a matrix of 45 x 30, found 2"));
  EXPECT_THAT(complaint([](Made& m) { m[up].shape = {3, 1087}; }), HasSubstr("expected blocks of 2048, 1088, 832 or 576 bytes"));
  EXPECT_THAT(complaint([](Made& m) { m[up].shape = {3 * 1088}; }), HasSubstr("expected blocks of"));
  EXPECT_THAT(complaint([](Made& m) { m[up + "_scale"].data += 1; }), HasSubstr("on a multiple of 4 bytes"));
  for (const float scale : {NAN, INFINITY})
    EXPECT_THAT(complaint([&](Made& m) { *reinterpret_cast<float*>(const_cast<std::byte*>(m[up + "_scale"].data)) = scale; }),
                HasSubstr(up + "_scale: row 0: expected a finite number"));
  EXPECT_THAT(complaint([&](Made& m) { *reinterpret_cast<int32_t*>(const_cast<std::byte*>(m[up + "_sum"].data)) = INT32_MIN; }),
              HasSubstr(up + "_sum: row 0: expected a sum of 128 int8 values"));
  EXPECT_THAT(complaint([](Made& m) { m.checkpoint.tensors["extra_scale"] = m[up + "_scale"]; }), HasSubstr("extra_scale"));
}

TEST(PackedModel, PackedWeightsAreNotPackedAgain) {
  const Made made(small("gqa"), {DType::w4, {}});
  try {
    load_model(made.config, made.checkpoint, {.recipe = {DType::w8, {}}, .experts_on_disk = false, .progress = {}});
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("is packed already"));
  }
}

TEST(PackedModel, ExpertsOnDiskAreNotLookedAt) {
  Made made(small("moe"), {DType::w4, {}});
  const std::string name = "model.layers.1.mlp.experts.3.up_proj.weight";
  *reinterpret_cast<float*>(const_cast<std::byte*>(made[name + "_scale"].data)) = NAN;
  EXPECT_THAT(made.complaint(), testing::HasSubstr(name));
  load_model(made.config, made.checkpoint, {.recipe = {}, .experts_on_disk = true, .progress = {}});
}

TEST(Recipe, GivesEachPartItsType) {
  const ModelConfig v2 = preset("v2-lite"), odd = small("mla");  // whose heads are no multiples of 16
  const auto type = [](const ModelConfig& c, const Recipe& recipe, const std::string& name, Role role = Role::matrix) {
    const auto t = recipe.type_of(c, name, role);
    return std::string(t ? name_of(*t) : "stored");
  };
  const Recipe w8{DType::w8, {}}, w4{DType::w4, {}}, w2{DType::w2, {}}, none{}, f16{DType::f16, {}};
  EXPECT_EQ(type(v2, w2, "model.layers.3.mlp.experts.7.up_proj.weight"), "W2");
  EXPECT_EQ(type(v2, w2, "model.layers.3.mlp.shared_experts.up_proj.weight"), "W4");
  EXPECT_EQ(type(v2, w4, "model.layers.3.self_attn.o_proj.weight"), "W4");
  EXPECT_EQ(type(v2, w8, "model.layers.3.self_attn.o_proj.weight"), "W8");
  EXPECT_EQ(type(preset("smollm2-135m"), w4, "model.layers.3.self_attn.k_proj.weight"), "W8");
  EXPECT_EQ(type(preset("coder-1.3b"), w4, "model.layers.3.self_attn.k_proj.weight"), "W4");  // as many keys as queries
  EXPECT_EQ(type(v2, w4, "lm_head.weight"), "W8");
  EXPECT_EQ(type(v2, none, "lm_head.weight"), "stored");
  EXPECT_EQ(type(v2, f16, "lm_head.weight"), "F16");
  EXPECT_EQ(type(v2, w4, "model.layers.3.mlp.gate.weight", Role::router), "stored");
  EXPECT_EQ(type(v2, w4, "model.norm.weight", Role::norm), "stored");
  EXPECT_EQ(type(v2, w4, "model.layers.3.self_attn.kv_b_proj.weight"), "W8");
  EXPECT_EQ(type(odd, w4, "model.layers.1.self_attn.kv_b_proj.weight"), "stored");
  const Recipe kept{DType::w4, {{"*.3.*.o_proj.weight", DType::bf16}, {"*.o_proj.*", DType::w8}}};
  EXPECT_EQ(type(v2, kept, "model.layers.3.self_attn.o_proj.weight"), "BF16");
  EXPECT_EQ(type(v2, kept, "model.layers.4.self_attn.o_proj.weight"), "W8");
  EXPECT_THROW(parse_weight_type("w5"), Error);
}

}  // namespace
}  // namespace hadal
