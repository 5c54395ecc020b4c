// GGUF: metadata, tensors under their own and their published names, and the message for each kind of broken file.
#include "model/gguf.h"

#include <gmock/gmock.h>

#include "made_files.h"
#include "model/gguf_names.h"

namespace hadal::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

enum Type : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };  // of metadata
constexpr uint32_t f32_tensor = 0, q8_0_tensor = 8, iq1_s_tensor = 19, i8_tensor = 24, bf16_tensor = 30;

std::string text_of(std::string_view value) { return Bytes().put(uint64_t(value.size())).put_text(value).text; }

struct MadeGguf {
  uint32_t version = 3;
  size_t alignment = 32;
  uint64_t keys = 0, tensors = 0;
  Bytes metadata = {}, entries = {}, data = {};

  template <class T>
  MadeGguf& key(std::string_view name, Type type, T value) {
    return raw_key(name, type, Bytes().put(value).text);
  }
  MadeGguf& raw_key(std::string_view name, Type type, const std::string& value) {
    metadata.put_text(text_of(name)).put(uint32_t(type)).put_text(value);
    ++keys;
    return *this;
  }
  MadeGguf& tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& sides, const std::string& values) {
    data.pad_to(alignment);
    entry(name, type, sides, data.text.size());
    data.put_text(values);
    return *this;
  }
  MadeGguf& entry(std::string_view name, uint32_t type, const std::vector<uint64_t>& sides, uint64_t offset) {
    entries.put_text(text_of(name)).put(uint32_t(sides.size()));
    for (const uint64_t side : sides) entries.put(side);
    entries.put(type).put(offset);
    ++tensors;
    return *this;
  }
  std::string file() const {
    return Bytes()
        .put_text("GGUF")
        .put(version)
        .put(tensors)
        .put(keys)
        .put_text(metadata.text)
        .put_text(entries.text)
        .pad_to(alignment)
        .put_text(data.text)
        .text;
  }
};

Gguf open(const std::string& file) {
  const auto owned = std::make_shared<const std::string>(file);
  return Gguf(owned, view_of(*owned), "x.gguf");
}
std::string error_for(const std::string& file) {
  return error_of([&] { open(file); });
}
std::string error_for(const MadeGguf& made) { return error_for(made.file()); }

std::vector<float> counted(size_t count, float first = 0) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = first + float(i);
  return values;
}

TEST(Gguf, ReadsMetadataOfEveryType) {
  MadeGguf made;
  made.key("u8", u8, uint8_t(200))
      .key("i8", i8, int8_t(-3))
      .key("u16", u16, uint16_t(65535))
      .key("i16", i16, int16_t(-3))
      .key("u32", u32, 4000000000u);
  made.key("i32", i32, -3).key("u64", u64, uint64_t(1) << 40).key("i64", i64, int64_t(-1) << 40).key("f32", f32, 0.5f).key("f64", f64, 0.1);
  made.key("yes", boolean, uint8_t(1)).raw_key("general.architecture", text, text_of("llama"));
  made.raw_key("words", array, Bytes().put(uint32_t(text)).put(uint64_t(2)).put_text(text_of("a")).put_text(text_of("")).text);
  made.raw_key("numbers", array, Bytes().put(uint32_t(i32)).put(uint64_t(2)).put(-1).put(7).text);
  made.raw_key("scores", array, Bytes().put(uint32_t(f32)).put(uint64_t(1)).put(2.5f).text);
  made.raw_key("flags", array, Bytes().put(uint32_t(boolean)).put(uint64_t(2)).put(uint8_t(1)).put(uint8_t(0)).text);
  made.raw_key("nothing", array, Bytes().put(uint32_t(u8)).put(uint64_t(0)).text);
  const Gguf file = open(made.file());
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -3);
  EXPECT_EQ(file.integer("u16"), 65535);
  EXPECT_EQ(file.integer("i16"), -3);
  EXPECT_EQ(file.integer("u32"), 4000000000);
  EXPECT_EQ(file.integer("i32"), -3);
  EXPECT_EQ(file.integer("u64"), int64_t(1) << 40);
  EXPECT_EQ(file.integer("i64"), int64_t(-1) << 40);
  EXPECT_EQ(file.real("f32", 0), 0.5);
  EXPECT_EQ(file.real("f64", 0), 0.1);
  EXPECT_TRUE(file.flag("yes", false));
  EXPECT_EQ(file.architecture(), "llama");
  EXPECT_THAT(*file.texts("words"), ElementsAre("a", ""));
  EXPECT_THAT(*file.integers("numbers"), ElementsAre(-1, 7));
  EXPECT_THAT(*file.reals("scores"), ElementsAre(2.5));
  EXPECT_THAT(*file.integers("flags"), ElementsAre(1, 0));
  EXPECT_THAT(*file.integers("nothing"), IsEmpty());
}

TEST(Gguf, AbsentKeysFallBackAndOtherTypesAreErrors) {
  const Gguf file = open(MadeGguf().key("n", u32, 3u).file());
  EXPECT_EQ(file.integer("absent", 5), 5);
  EXPECT_EQ(file.real("absent", 0.5), 0.5);
  EXPECT_EQ(file.flag("absent", true), true);
  EXPECT_EQ(file.text("absent"), nullptr);
  EXPECT_EQ(file.texts("absent"), nullptr);
  EXPECT_THAT(error_of([&] { file.integer("absent"); }), HasSubstr("x.gguf: expected an integer under the key absent, found none"));
  EXPECT_THAT(error_of([&] { file.text("n"); }), HasSubstr("key n: expected a string"));
  EXPECT_THAT(error_of([&] { file.architecture(); }), HasSubstr("general.architecture"));
}

TEST(Gguf, TensorsAreInPlaceOutermostSideFirst) {
  for (const uint32_t version : {2u, 3u}) {
    MadeGguf made{.version = version};
    made.tensor("token_embd.weight", f32_tensor, {3, 2}, floats(counted(6)))
        .tensor("output_norm.weight", f32_tensor, {3}, floats(counted(3, 9)));
    const Gguf file = open(made.file());
    EXPECT_THAT(file.stored().at("token_embd.weight").shape, ElementsAre(2, 3));
    const Checkpoint checkpoint = file.checkpoint();
    EXPECT_EQ(values_of(checkpoint.tensors.at("model.embed_tokens.weight")), counted(6));
    EXPECT_EQ(values_of(checkpoint.tensors.at("model.norm.weight")), counted(3, 9));
  }
}

TEST(Gguf, AlignmentIsTheFilesOwn) {
  MadeGguf made{.alignment = 128};
  made.key("general.alignment", u32, 128u).tensor("a", f32_tensor, {2}, floats({1, 2})).tensor("b", f32_tensor, {1}, floats({3}));
  EXPECT_THAT(values_of(open(made.file()).stored().at("b")), ElementsAre(3));
}

TEST(GgufNames, ArePublishedNames) {
  EXPECT_EQ(published_name("output.weight"), "lm_head.weight");
  EXPECT_EQ(published_name("blk.0.attn_norm.weight"), "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(published_name("blk.12.attn_q.bias"), "model.layers.12.self_attn.q_proj.bias");
  EXPECT_EQ(published_name("blk.12.attn_output.weight"), "model.layers.12.self_attn.o_proj.weight");
  EXPECT_EQ(published_name("blk.3.attn_k_norm.weight"), "model.layers.3.self_attn.k_norm.weight");
  EXPECT_EQ(published_name("blk.3.attn_q_a_norm.weight"), "model.layers.3.self_attn.q_a_layernorm.weight");
  EXPECT_EQ(published_name("blk.3.attn_kv_a_mqa.weight"), "model.layers.3.self_attn.kv_a_proj_with_mqa.weight");
  EXPECT_EQ(published_name("blk.3.attn_kv_b.weight"), "model.layers.3.self_attn.kv_b_proj.weight");
  EXPECT_EQ(published_name("blk.3.ffn_norm.weight"), "model.layers.3.post_attention_layernorm.weight");
  EXPECT_EQ(published_name("blk.3.ffn_gate_inp.weight"), "model.layers.3.mlp.gate.weight");
  EXPECT_EQ(published_name("blk.3.exp_probs_b.bias"), "model.layers.3.mlp.gate.e_score_correction_bias");
  EXPECT_EQ(published_name("blk.3.ffn_down_shexp.weight"), "model.layers.3.mlp.shared_experts.down_proj.weight");
  for (const std::string same : {"v.patch_embd.weight", "blk.x.attn_q.weight", "blk.", "blk.3", "blk.3.", "blk.3.attn_q",
                                 "blk.3.attn_q.scale", "blk.3.nextn.eh_proj.weight"})
    EXPECT_EQ(published_name(same), same);
}

TEST(GgufNames, UnknownTensorsStayAndRopeTablesGo) {
  MadeGguf made;
  made.tensor("surplus", f32_tensor, {1}, floats({1})).tensor("rope_freqs.weight", f32_tensor, {1}, floats({1}));
  made.tensor("blk.0.attn_rot_embd.weight", f32_tensor, {1}, floats({1}));
  const Checkpoint checkpoint = open(made.file()).checkpoint();
  ASSERT_EQ(checkpoint.tensors.size(), 1u);
  EXPECT_TRUE(checkpoint.tensors.contains("surplus"));
}

TEST(GgufNames, ExpertStacksAreSlicedInPlace) {
  const Gguf file = open(MadeGguf().tensor("blk.1.ffn_up_exps.weight", f32_tensor, {3, 2, 4}, floats(counted(24))).file());
  const Checkpoint checkpoint = file.checkpoint();
  ASSERT_EQ(checkpoint.tensors.size(), 4u);
  for (int e = 0; e < 4; ++e) {
    const StoredTensor& expert = checkpoint.tensors.at(fmt::format("model.layers.1.mlp.experts.{}.up_proj.weight", e));
    EXPECT_THAT(expert.shape, ElementsAre(2, 3));
    EXPECT_EQ(values_of(expert), counted(6, float(6 * e)));
    EXPECT_EQ(expert.data, file.stored().begin()->second.data + 24 * e);
  }
}

// 2 heads, rank 3, nope 2, v 1; k is stored transposed per head.
TEST(GgufNames, HalvesOfKvAreJoinedHeadByHead) {
  MadeGguf made;
  made.tensor("blk.0.attn_k_b.weight", f32_tensor, {2, 3, 2}, floats({1, 4, 2, 5, 3, 6, 21, 24, 22, 25, 23, 26}));
  made.tensor("blk.0.attn_v_b.weight", f32_tensor, {3, 1, 2}, floats({7, 8, 9, 27, 28, 29}));
  const Checkpoint checkpoint = open(made.file()).checkpoint();
  ASSERT_EQ(checkpoint.tensors.size(), 1u);
  const StoredTensor& joined = checkpoint.tensors.at("model.layers.0.self_attn.kv_b_proj.weight");
  EXPECT_THAT(joined.shape, ElementsAre(6, 3));
  EXPECT_THAT(values_of(joined), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 22, 23, 24, 25, 26, 27, 28, 29));
}

TEST(GgufNames, QuantisedHalvesAreJoinedAsFloats) {
  std::string block = Bytes().put(f32_to_f16(0.5f)).text;  // 32 codes 0..31 with the scale 0.5
  for (int i = 0; i < 32; ++i) block += char(i);
  MadeGguf made;
  made.tensor("blk.0.attn_k_b.weight", q8_0_tensor, {32, 1, 1}, block).tensor("blk.0.attn_v_b.weight", f32_tensor, {1, 1, 1}, floats({99}));
  const StoredTensor joined = open(made.file()).checkpoint().tensors.at("model.layers.0.self_attn.kv_b_proj.weight");
  EXPECT_THAT(joined.shape, ElementsAre(33, 1));
  EXPECT_EQ(joined.dtype, DType::f32);
}

TEST(GgufNames, HalvesBesideTheWholeAreLeftOut) {
  MadeGguf made;
  made.tensor("blk.0.attn_k_b.weight", f32_tensor, {1, 1, 1}, floats({1}))
      .tensor("blk.0.attn_v_b.weight", f32_tensor, {1, 1, 1}, floats({2}));
  made.tensor("blk.0.attn_kv_b.weight", f32_tensor, {1, 2}, floats({1, 2}));
  EXPECT_THAT(values_of(open(made.file()).checkpoint().tensors.at("model.layers.0.self_attn.kv_b_proj.weight")), ElementsAre(1, 2));
}

TEST(GgufNames, StacksAndHalvesOfWrongShapeAreErrors) {
  const auto error_of_names = [](const MadeGguf& made) { return error_of([&] { open(made.file()).checkpoint(); }); };
  EXPECT_THAT(error_of_names(MadeGguf().tensor("blk.0.ffn_up_exps.weight", f32_tensor, {2, 2}, floats(counted(4)))),
              HasSubstr("ffn_up_exps.weight: expected a shape of [experts, out, in]"));
  EXPECT_THAT(error_of_names(MadeGguf().tensor("blk.0.ffn_up_exps.weight", i8_tensor, {1, 1, 70000}, std::string(70000, 'a'))),
              HasSubstr("at most 65536 experts"));
  EXPECT_THAT(error_of_names(MadeGguf().tensor("blk.0.attn_k_b.weight", f32_tensor, {1}, floats({1}))),
              HasSubstr("expected attn_k_b and attn_v_b together"));
  EXPECT_THAT(error_of_names(MadeGguf()
                                 .tensor("blk.0.attn_k_b.weight", f32_tensor, {1, 1, 1}, floats({1}))
                                 .tensor("blk.0.attn_v_b.weight", f32_tensor, {2, 1, 1}, floats({1, 2}))),
              HasSubstr("expected attn_k_b of [heads, rank, nope] and attn_v_b of [heads, v, rank]"));
  EXPECT_THAT(error_of_names(
                  MadeGguf().tensor("output.weight", f32_tensor, {1}, floats({1})).tensor("lm_head.weight", f32_tensor, {1}, floats({1}))),
              HasSubstr("two tensors become lm_head.weight"));
  EXPECT_THAT(error_of_names(MadeGguf().key("split.count", u16, uint16_t(3))), HasSubstr("one of 3 parts of a split model"));
}

TEST(Gguf, EveryTruncationIsAnErrorThatNamesTheFile) {
  MadeGguf made;
  made.raw_key("general.architecture", text, text_of("llama")).raw_key("n", array, Bytes().put(uint32_t(i32)).put(uint64_t(1)).put(3).text);
  const std::string file = made.tensor("a", f32_tensor, {2}, floats({1, 2})).file();
  EXPECT_EQ(open(file).stored().size(), 1u);
  for (size_t size = 0; size < file.size(); ++size) EXPECT_THAT(error_for(file.substr(0, size)), HasSubstr("x.gguf: ")) << size;
}

TEST(Gguf, MagicVersionAndByteOrder) {
  EXPECT_THAT(error_for("GGML0000000000000000000"), HasSubstr("expected a GGUF file (magic \"GGUF\")"));
  EXPECT_THAT(error_for(MadeGguf{.version = 1}), HasSubstr("expected GGUF version 2 or 3, found 1"));
  EXPECT_THAT(error_for(MadeGguf{.version = 4}), HasSubstr("expected GGUF version 2 or 3, found 4"));
  EXPECT_THAT(error_for(MadeGguf{.version = 0x03000000}), HasSubstr("expected little-endian numbers, found a big-endian file"));
}

TEST(Gguf, CountsAreBoundedByTheFile) {
  EXPECT_THAT(error_for(MadeGguf{.keys = uint64_t(1) << 60}), HasSubstr("do not fit into the"));
  EXPECT_THAT(error_for(MadeGguf{.tensors = UINT64_MAX}), HasSubstr("do not fit into the"));
  EXPECT_THAT(error_for(MadeGguf().raw_key("k", text, Bytes().put(UINT64_MAX).text)),
              HasSubstr("truncated: expected 18446744073709551615 bytes of k"));
  EXPECT_THAT(error_for(MadeGguf().raw_key("k", array, Bytes().put(uint32_t(u64)).put(uint64_t(1) << 61).text)),
              HasSubstr("key k: an array of 2305843009213693952 values does not fit"));
  EXPECT_THAT(error_for(MadeGguf().raw_key("k", array, Bytes().put(uint32_t(text)).put(uint64_t(1000)).text)),
              HasSubstr("an array of 1000 values does not fit"));
  EXPECT_THAT(error_for(MadeGguf().raw_key(std::string(70000, 'k'), text, text_of(""))),
              HasSubstr("length of a metadata key: expected at most 65535, found 70000"));
}

TEST(Gguf, MetadataOfOtherKindsIsNamed) {
  EXPECT_THAT(
      error_for(MadeGguf().raw_key("k", array, Bytes().put(uint32_t(array)).put(uint64_t(1)).put(uint32_t(u8)).put(uint64_t(0)).text)),
      HasSubstr("key k: expected an array of numbers, booleans or strings, found elements of type 9"));
  EXPECT_THAT(error_for(MadeGguf().raw_key("k", Type(77), "")), HasSubstr("key k: unknown value type 77"));
  EXPECT_THAT(error_for(MadeGguf().key("k", u64, UINT64_MAX)),
              HasSubstr("key k: expected at most 9223372036854775807, found 18446744073709551615"));
  EXPECT_THAT(error_for(MadeGguf().key("k", u8, uint8_t(1)).key("k", u8, uint8_t(1))), HasSubstr("metadata key k is there twice"));
  for (const uint32_t alignment : {0u, 24u, 1u << 21})
    EXPECT_THAT(error_for(MadeGguf().key("general.alignment", u32, alignment)),
                HasSubstr(fmt::format("general.alignment: expected a power of two up to 1048576, found {}", alignment)));
  EXPECT_THAT(error_for(MadeGguf().raw_key("general.alignment", text, text_of("32"))),
              HasSubstr("key general.alignment: expected an integer"));
}

TEST(Gguf, UnsupportedTensorTypesAreNamed) {
  EXPECT_THAT(error_for(MadeGguf().tensor("blk.0.attn_q.weight", iq1_s_tensor, {256}, std::string(256, 0))),
              HasSubstr("tensor blk.0.attn_q.weight: type IQ1_S is not supported; expected F32"));
  EXPECT_THAT(error_for(MadeGguf().tensor("t", 12345, {1}, "aaaa")), HasSubstr("tensor t: unknown type number 12345"));
}

TEST(Gguf, ShapesAndPlacesAreChecked) {
  EXPECT_THAT(error_for(MadeGguf().tensor("t", f32_tensor, {1, 1, 1, 1, 1}, floats({1}))),
              HasSubstr("tensor t: expected at most 4 dimensions, found 5"));
  EXPECT_THAT(error_for(MadeGguf().tensor("t", f32_tensor, {0}, "")), HasSubstr("tensor t: expected sides of 1 or more, found 0"));
  EXPECT_THAT(error_for(MadeGguf().tensor("t", f32_tensor, {1ull << 63}, "")), HasSubstr("expected sides of 1 or more"));
  EXPECT_THAT(error_for(MadeGguf().tensor("t", f32_tensor, {1ull << 40, 1ull << 40}, "")), HasSubstr("more values than any file can hold"));
  EXPECT_THAT(error_for(MadeGguf().tensor("t", q8_0_tensor, {33}, std::string(68, 0))),
              HasSubstr("tensor t: expected rows of a multiple of 32 values for Q8_0, found 33"));
  EXPECT_THAT(error_for(MadeGguf().entry("t", f32_tensor, {2}, 0)),
              HasSubstr("tensor t: expected 8 bytes at 0 inside the 0 bytes of data"));
  EXPECT_THAT(error_for(MadeGguf().entry("t", f32_tensor, {2}, ~31ull)), HasSubstr("inside the 0 bytes of data"));
  EXPECT_THAT(error_for(MadeGguf().entry("t", f32_tensor, {2}, 4)),
              HasSubstr("tensor t: expected an offset that is a multiple of 32, found 4"));
  EXPECT_THAT(error_for(MadeGguf().tensor("a", f32_tensor, {16}, floats(counted(16))).entry("b", bf16_tensor, {2}, 32)),
              HasSubstr("tensors a and b overlap: bytes [0, 64) and [32, 36)"));
  EXPECT_THAT(error_for(MadeGguf().tensor("a", f32_tensor, {1}, floats({1})).tensor("a", f32_tensor, {1}, floats({1}))),
              HasSubstr("tensor a is there twice"));
}

}  // namespace
}  // namespace hadal::test
