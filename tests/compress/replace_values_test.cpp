// A copied checkpoint: new values in the named tensors, every other byte as it was, and nothing left behind by what fails.
#include "compress/replace_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "model/safetensors_writer.h"
#include "tests/model/made_files.h"

namespace hadal {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class ReplaceValues : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(source_);
    const std::vector<float> values{1, 2, 3, 4};
    const std::vector<bf16> narrow{f32_to_bf16(5), f32_to_bf16(6)};
    SafetensorsWriter writer(source_ / "model.safetensors", {{"a", DType::f32, {4}}, {"b", DType::bf16, {2}}, {"c", DType::f32, {4}}});
    writer.write(std::as_bytes(std::span(values)));
    writer.write(std::as_bytes(std::span(narrow)));
    writer.write(std::as_bytes(std::span(values)));
    writer.finish();
    write_atomically(source_ / "config.json", [](std::ostream& out) { out << "{}"; });
    write_atomically(source_ / "quantization.json", [](std::ostream& out) { out << "{}"; });
  }
  std::vector<float> read(const fs::path& folder, const std::string& name) {
    const Checkpoint checkpoint = open_checkpoint(folder / "model.safetensors");
    return test::values_of(checkpoint.tensors.at(name));
  }
  void copy(const std::map<std::string, std::vector<float>>& values) {
    copy_with_values(source_, open_checkpoint(source_ / "model.safetensors"), to_, values);
  }
  test::Folder folder_;
  fs::path source_ = folder_.path() / "source", to_ = folder_.path() / "to";
};

TEST_F(ReplaceValues, WritesTheNamedOnesInTheirType) {
  copy({{"a", {9, 8, 7, 6}}, {"b", {0.5, -1}}});
  EXPECT_THAT(read(to_, "a"), testing::ElementsAre(9, 8, 7, 6));
  EXPECT_THAT(read(to_, "b"), testing::ElementsAre(0.5, -1));
  EXPECT_THAT(read(to_, "c"), testing::ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(read(source_, "a"), testing::ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(fs::exists(to_ / "config.json"));
  EXPECT_FALSE(fs::exists(to_ / "quantization.json"));
}

TEST_F(ReplaceValues, RefusesAndLeavesNothing) {
  EXPECT_THAT([&] { copy({{"d", {1}}}); }, ThrowsMessage<Error>(HasSubstr("tensor d")));
  EXPECT_THAT([&] { copy({{"a", {1}}}); }, ThrowsMessage<Error>(HasSubstr("expected 1 values, found 4")));
  EXPECT_FALSE(fs::exists(to_));
  EXPECT_FALSE(fs::exists(fs::path(to_).concat(".part")));
  fs::create_directories(to_);
  EXPECT_THAT([&] { copy({}); }, ThrowsMessage<Error>(HasSubstr("a new folder")));
}

}  // namespace
}  // namespace hadal
