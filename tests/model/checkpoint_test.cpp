// Which files of a folder make a checkpoint, and what is said when they do not fit together.
#include "model/checkpoint.h"

#include <gmock/gmock.h>

#include "core/files.h"
#include "made_files.h"

namespace hadal::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string error_for(const std::filesystem::path& path) {
  return error_of([&] { open_checkpoint(path); });
}

std::vector<std::string> names_of(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : checkpoint.tensors) names.push_back(name);
  return names;
}

TEST(Checkpoint, ReadsShardsThroughTheIndexWhateverTheirNames) {
  const Folder folder;
  folder.write("odd-name-1.safetensors", one_tensor("a", {1}));
  folder.write("model-00002-of-000002.safetensors", one_tensor("b", {2}));
  folder.write("left-over.safetensors", one_tensor("a", {3}));  // not in the index: not looked at
  folder.write("model.safetensors.index.json",
               R"({"metadata":{},"weight_map":{"a":"odd-name-1.safetensors","b":"model-00002-of-000002.safetensors"}})");
  const Checkpoint checkpoint = open_checkpoint(folder.path());
  EXPECT_THAT(names_of(checkpoint), ElementsAre("a", "b"));
  EXPECT_THAT(values_of(checkpoint.tensors.at("a")), ElementsAre(1));
  EXPECT_EQ(checkpoint.files.size(), 2u);
}

TEST(Checkpoint, ListsTheFolderWithoutAnIndex) {
  const Folder folder;
  folder.write("part1.safetensors", one_tensor("a", {1}));
  folder.write("part2.safetensors", one_tensor("b", {2}));
  EXPECT_THAT(names_of(open_checkpoint(folder.path())), ElementsAre("a", "b"));
  EXPECT_THAT(names_of(open_checkpoint(folder.path() / "part2.safetensors")), ElementsAre("b"));
}

TEST(Checkpoint, PrefersModelFilesToConsolidatedOnes) {
  const Folder folder;
  folder.write("consolidated.safetensors", one_tensor("layers.0", {1}));
  folder.write("model.safetensors", one_tensor("model.layers.0", {1}));
  EXPECT_THAT(names_of(open_checkpoint(folder.path())), ElementsAre("model.layers.0"));
}

TEST(Checkpoint, AnExtraTensorInAShardStaysVisible) {
  const Folder folder;
  folder.write(
      "t.safetensors",
      safetensors_file(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"surplus":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                       "xy"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"t.safetensors"}})");
  EXPECT_THAT(names_of(open_checkpoint(folder.path())), ElementsAre("a", "surplus"));
}

TEST(Checkpoint, ATensorInTwoShardsIsAnErrorNamingBoth) {
  const Folder folder;
  folder.write("one.safetensors", one_tensor("model.norm.weight", {1}));
  folder.write("two.safetensors", one_tensor("model.norm.weight", {2}));
  EXPECT_THAT(error_for(folder.path()),
              AllOf(HasSubstr("tensor model.norm.weight is in two files"), HasSubstr("one.safetensors"), HasSubstr("two.safetensors")));
}

TEST(Checkpoint, TheIndexAndItsShardsMustAgree) {
  const Folder folder;
  const auto with_map = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", R"({"weight_map":)" + map + "}");
    return error_for(folder.path());
  };
  folder.write("here.safetensors", one_tensor("a", {1}));
  folder.write("also.safetensors", one_tensor("b", {1}));
  EXPECT_THAT(with_map(R"({"a":"gone.safetensors"})"), HasSubstr("tensor a is expected in gone.safetensors, which is not there"));
  EXPECT_THAT(with_map(R"({"a":"here.safetensors","lost":"here.safetensors"})"),
              HasSubstr("tensor lost is expected in here.safetensors, which has no such tensor"));
  EXPECT_THAT(with_map(R"({"a":"also.safetensors","b":"here.safetensors"})"),
              HasSubstr("tensor a is expected in also.safetensors, found in here.safetensors"));
  EXPECT_THAT(with_map(R"({"a":3})"), HasSubstr("tensor a: expected a file name"));
  EXPECT_THAT(with_map(R"({})"), HasSubstr("expected at least one tensor under \"weight_map\""));
  EXPECT_THAT(with_map("[]"), HasSubstr("expected an object under \"weight_map\""));
  EXPECT_THAT(with_map("{"), HasSubstr("index.json: expected a JSON object"));
}

TEST(Checkpoint, ShardNamesStayInsideTheFolder) {
  const Folder folder;
  for (const std::string name : {"../x.safetensors", "/etc/passwd", "sub/../../x", "..", ".", ""}) {
    folder.write("model.safetensors.index.json", R"({"weight_map":{"a":")" + name + "\"}}");
    EXPECT_THAT(error_for(folder.path()), HasSubstr("expected the name of a file in the same folder, found \"" + name + "\""));
  }
}

TEST(Checkpoint, ShardNamesThatNoFileCanHaveAreAbsentFiles) {
  const Folder folder;
  const std::string name(300, 'n');
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":")" + name + "\"}}");
  EXPECT_THAT(error_for(folder.path()), HasSubstr("tensor a is expected in " + name + ", which is not there"));
}

TEST(Checkpoint, AnIndexOfAnOlderUploadDoesNotHideTheSingleBin) {
  const Folder folder;
  folder.write("pytorch_model.bin.index.json", R"({"weight_map":{"a":"pytorch_model-00001-of-00002.bin"}})");
  EXPECT_THAT(error_for(folder.path()), HasSubstr("tensor a is expected in pytorch_model-00001-of-00002.bin, which is not there"));
  std::filesystem::copy(HADAL_SOURCE "/tests/golden/llama_llama3/model/pytorch_model-00001-of-00002.bin",
                        folder.path() / "pytorch_model.bin");
  const Checkpoint single = open_checkpoint(folder.path());
  ASSERT_EQ(single.files.size(), 1u);
  EXPECT_EQ(single.files[0]->path(), folder.path() / "pytorch_model.bin");
  EXPECT_GT(single.tensors.size(), 0u);
}

TEST(Checkpoint, ReadsShardedBins) {
  const Checkpoint checkpoint = open_checkpoint(HADAL_SOURCE "/tests/golden/llama_llama3/model");
  EXPECT_EQ(checkpoint.files.size(), 2u);
  EXPECT_TRUE(checkpoint.tensors.contains("model.embed_tokens.weight"));
}

TEST(Checkpoint, WhatIsNoCheckpointIsNamed) {
  const Folder folder;
  EXPECT_THAT(error_for(folder.path()),
              AllOf(HasSubstr(folder.path().string()), HasSubstr("expected weights (*.safetensors or pytorch_model*.bin), found none")));
  EXPECT_THAT(error_for(folder.path() / "none.safetensors"), AllOf(HasSubstr("none.safetensors"), HasSubstr("No such file")));
  EXPECT_THAT(error_for(folder.write("model.txt", "x")), HasSubstr("expected a name that ends in .safetensors, .bin, .pt, .pth or .gguf"));
  EXPECT_THAT(error_for(folder.write("empty.safetensors", "")), HasSubstr("truncated"));
  EXPECT_THAT(error_for(folder.write("empty.gguf", "")), HasSubstr("truncated"));
  EXPECT_THAT(error_for(folder.write("empty.bin", "")), HasSubstr("expected a zip archive"));
}

}  // namespace
}  // namespace hadal::test
