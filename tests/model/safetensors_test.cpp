// safetensors: what a good file says, and what the message says about each kind of bad one.
#include "model/safetensors.h"

#include <gmock/gmock.h>

#include "made_files.h"

namespace hadal::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string error_for(const std::string& file) {
  return error_of([&] { parse_safetensors(view_of(file), "x.safetensors"); });
}
std::string error_for(const std::string& header, size_t data_bytes) {
  return error_for(safetensors_file(header, std::string(data_bytes, 'a')));
}

TEST(Safetensors, ReadsTensorsInPlaceAndIgnoresMetadata) {
  const std::string file = safetensors_file(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"a":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}})",
      floats({1.5f, -2}) + std::string("\x80\x3f", 2));
  const auto tensors = parse_safetensors(view_of(file), "x.safetensors");
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_THAT(tensors.at("b").shape, ElementsAre(2, 1));
  EXPECT_THAT(values_of(tensors.at("b")), ElementsAre(1.5f, -2));
  EXPECT_EQ(tensors.at("b").data, view_of(file).data() + file.size() - 10);
  EXPECT_EQ(tensors.at("a").dtype, DType::bf16);
  EXPECT_THAT(values_of(tensors.at("a")), ElementsAre(1));
}

TEST(Safetensors, EverySizeIsReadWhole) {
  for (const size_t n : {0, 1, 7, 8, 15, 16, 17, 127}) {
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = float(i) + 0.25f;
    const std::string file = one_tensor("t", values);
    EXPECT_EQ(values_of(parse_safetensors(view_of(file), "x").at("t")), values) << n;
  }
}

TEST(Safetensors, EveryDtypeIsKnownByItsName) {
  for (const auto& [name, size] : {std::pair{"F32", 4},
                                   {"F16", 2},
                                   {"BF16", 2},
                                   {"F8_E4M3", 1},
                                   {"I64", 8},
                                   {"I32", 4},
                                   {"I16", 2},
                                   {"I8", 1},
                                   {"U8", 1},
                                   {"BOOL", 1}}) {
    const std::string header = fmt::format(R"({{"t":{{"dtype":"{}","shape":[1],"data_offsets":[0,{}]}}}})", name, size);
    const std::string file = safetensors_file(header, std::string(size_t(size), 0));
    EXPECT_EQ(name_of(parse_safetensors(view_of(file), "x").at("t").dtype), name);
  }
}

TEST(Safetensors, EveryTruncationIsAnErrorThatNamesTheFile) {
  const std::string file = one_tensor("t", {1, 2, 3});
  for (size_t size = 0; size < file.size(); ++size) EXPECT_THAT(error_for(file.substr(0, size)), HasSubstr("x.safetensors: ")) << size;
}

TEST(Safetensors, HeaderLengthIsBounded) {
  EXPECT_THAT(error_for("short"), HasSubstr("truncated: expected 8 bytes of header length at byte 0, found 5"));
  EXPECT_THAT(error_for(Bytes().put(uint64_t(1000)).put_text("{}").text), HasSubstr("header length: expected at most 2, found 1000"));
  EXPECT_THAT(error_for(Bytes().put(UINT64_MAX).put_text("{}").text), HasSubstr("found 18446744073709551615"));
}

TEST(Safetensors, HeaderMustBeAnObjectOfTensors) {
  EXPECT_THAT(error_for("[1]", 0), HasSubstr("header: expected a JSON object"));
  EXPECT_THAT(error_for(R"({"t":)", 0), HasSubstr("header: expected a JSON object"));
  EXPECT_THAT(error_for(std::string(5000, '['), 0), HasSubstr("header: expected a JSON object"));
  EXPECT_THAT(error_for(R"({"t":3})", 0), HasSubstr("tensor t: expected an object with dtype, shape and data_offsets"));
  EXPECT_THAT(error_for(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", 4), HasSubstr("tensor t: expected a string under \"dtype\""));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
              HasSubstr("integers of 0 or more under \"shape\""));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4),
              HasSubstr("integers of 0 or more under \"shape\""));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4), HasSubstr("at most 8 sides"));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4),
              HasSubstr("two integers of 0 or more under \"data_offsets\""));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4), HasSubstr("under \"data_offsets\""));
}

TEST(Safetensors, UnknownDtypesAreNamed) {
  for (const std::string_view type : {"F64", "Q4_0", "F8_E5M2"})
    EXPECT_THAT(error_for(fmt::format(R"({{"model.norm":{{"dtype":"{}","shape":[1],"data_offsets":[0,8]}}}})", type), 8),
                AllOf(HasSubstr("tensor model.norm: expected one of F32 F16"), HasSubstr(fmt::format("found {}", type))));
}

TEST(Safetensors, ShapesMustFitTheirBytes) {
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
              HasSubstr("tensor t: expected 12 bytes for 3 values of F32, found 8"));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8),
              HasSubstr("more values than any file can hold"));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
              HasSubstr("more values than any file can hold"));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 8),
              HasSubstr("expected bytes inside [0, 8), found [4, 12)"));
  EXPECT_THAT(error_for(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})", 8), HasSubstr("found [8, 4)"));
}

TEST(Safetensors, OverlapsTwinsAndLeftoversAreErrors) {
  EXPECT_THAT(error_for(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", 7),
              HasSubstr("tensors a and b overlap: bytes [0, 4) and [3, 7)"));
  EXPECT_THAT(error_for(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2),
              HasSubstr("tensor a is in the header twice"));
  EXPECT_THAT(error_for(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 9),
              HasSubstr("expected 4 bytes of tensors after the header, found 9"));
}

}  // namespace
}  // namespace hadal::test
