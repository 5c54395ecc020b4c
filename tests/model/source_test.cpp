// Where a model is found by path or name, what is no model, and where its chat template comes from.
#include "model/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "made_files.h"

namespace hadal::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

class Variable {  // of the environment, as it was again afterwards
 public:
  Variable(const char* name, const char* value) : name_(name), was_set_(std::getenv(name) != nullptr) {
    if (was_set_) was_ = std::getenv(name);
    value ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Variable() { was_set_ ? ::setenv(name_, was_.c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  bool was_set_;
  std::string was_;
};

class Source : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    fs::create_directories((cache_.path() / name).parent_path());
    return cache_.write(name, content);
  }
  std::optional<std::string> template_of(const std::string& folder) {
    const auto found = ModelSource(cache_.path() / folder).chat_template();
    return found ? std::optional(found->source()) : std::nullopt;
  }
  Folder cache_;
  Variable variable_{"HADAL_CACHE", cache_.path().c_str()};
};

constexpr const char* llama = R"({"model_type": "llama"})";

TEST_F(Source, TheCacheIsWhereTheEnvironmentSays) {
  EXPECT_EQ(cache_folder(), cache_.path());
  const Variable none("HADAL_CACHE", nullptr), home("HOME", "/somebody");
  {
    const Variable xdg("XDG_CACHE_HOME", "/var/x");
    EXPECT_EQ(cache_folder(), "/var/x/hadal");
  }
  const Variable no_xdg("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(cache_folder(), "/somebody/.cache/hadal");
  const Variable no_home("HOME", nullptr);
  EXPECT_THAT(error_of([] { cache_folder(); }), HasSubstr("HADAL_CACHE"));
}

TEST_F(Source, PathsThatExist) {
  const fs::path config = write("here/config.json", llama), file = write("files/one.gguf", "x");
  EXPECT_EQ(resolve_model(config.parent_path().string()), config.parent_path());
  EXPECT_EQ(resolve_model(file.string()), file);
  EXPECT_EQ(resolve_model(file.parent_path().string()), file) << "the only .gguf of a folder";
  write("files/two.gguf", "x");
  EXPECT_THAT(error_of([&] { resolve_model(file.parent_path().string()); }),
              AllOf(HasSubstr("holds 2 .gguf files"), HasSubstr("one.gguf")));
  EXPECT_EQ(resolve_model(file.string()), file);
}

TEST_F(Source, NamesInTheCache) {
  write("owner/name/config.json", llama);
  EXPECT_EQ(resolve_model("owner/name"), cache_.path() / "owner/name");
  const fs::path gguf = write("owner/name/a.gguf", "x");
  EXPECT_EQ(resolve_model("owner/name/a.gguf"), gguf);
  write("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B/config.json", llama);
  EXPECT_EQ(resolve_model("r1-distill-qwen-1.5b"), cache_.path() / "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B");
  const fs::path small = write("smollm2/anything.gguf", "x");
  EXPECT_EQ(resolve_model("smollm2"), small);
}

TEST_F(Source, WhatIsNotThereSaysWhatToDo) {
  const auto refusal = [](const std::string& name) { return error_of([&] { resolve_model(name); }); };
  EXPECT_THAT(refusal("owner/name"), AllOf(HasSubstr((cache_.path() / "owner/name").string()), HasSubstr("hadal pull owner/name")));
  EXPECT_THAT(refusal("coder-1.3b"), HasSubstr("hadal pull deepseek-ai/deepseek-coder-1.3b-instruct"));
  EXPECT_THAT(refusal("smollm2"), HasSubstr("script/run"));
  EXPECT_THAT(refusal("nothing"), HasSubstr("hadal models"));
  EXPECT_THAT(refusal(""), HasSubstr("expected a folder, a .gguf file or a name"));
  EXPECT_THAT(refusal("owner//name"), HasSubstr("owner//name"));
  write("empty/readme", "x");
  EXPECT_THAT(refusal((cache_.path() / "empty").string()), HasSubstr("expected config.json or a .gguf file"));
}

TEST_F(Source, NamesDoNotLeadOutOfTheCache) {
  write("outside/config.json", llama);
  fs::create_directories(cache_.path() / "inner");
  const Variable inner("HADAL_CACHE", (cache_.path() / "inner").c_str());
  for (const char* name : {"../outside", "x/../../outside", "./../outside", "/nowhere", "a\\b", "owner/name/"})
    EXPECT_THAT(error_of([&] { resolve_model(name); }), HasSubstr("expected a folder, a .gguf file or a name")) << name;
}

TEST_F(Source, EveryKnownNameIsUsable) {
  for (const KnownModel& known : known_models()) {
    EXPECT_FALSE(known.name.empty() || known.note.empty());
    EXPECT_EQ(known.name.find('/'), std::string::npos) << known.name;
    if (!known.repository.empty()) write(known.repository + "/config.json", llama);
  }
  for (const KnownModel& known : known_models())
    if (!known.repository.empty()) {
      EXPECT_EQ(resolve_model(known.name), cache_.path() / known.repository);
    }
}

TEST_F(Source, WhatIsNoModel) {
  EXPECT_THAT(error_of([&] { ModelSource(cache_.path() / "absent"); }), HasSubstr("there is no model at"));
  EXPECT_THAT(error_of([&] { ModelSource(write("x/model.safetensors", "x")); }), HasSubstr("expected a .gguf file, or the folder"));
  EXPECT_THAT(error_of([&] { ModelSource(write("y/broken.gguf", "x")); }), HasSubstr("broken.gguf"));
}

TEST_F(Source, ReadsTheConfigOfAFolder) {
  write("m/config.json", llama);
  write("m/generation_config.json", R"({"eos_token_id": 9})");
  const ModelSource source(cache_.path() / "m");
  EXPECT_EQ(source.path(), cache_.path() / "m");
  EXPECT_THAT(source.config().end_tokens, testing::ElementsAre(2, 9));
}

TEST_F(Source, TemplatesComeFromTheirOwnFileFirst) {
  write("m/config.json", llama);
  EXPECT_EQ(template_of("m"), std::nullopt) << "a base model";
  write("m/tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(template_of("m"), std::nullopt);
  write("m/tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(template_of("m"), "one");
  write("m/tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]})");
  EXPECT_EQ(template_of("m"), "three");
  write("m/chat_template.jinja", "four");
  EXPECT_EQ(template_of("m"), "four");
}

TEST_F(Source, TemplatesThatAreNone) {
  write("m/config.json", llama);
  for (const char* value : {"3", "[3]", "[{\"name\": \"default\"}]", "[{\"name\": \"other\", \"template\": \"x\"}]", "[]"}) {
    write("m/tokenizer_config.json", std::string("{\"chat_template\": ") + value + "}");
    EXPECT_THAT(error_of([&] { template_of("m"); }), HasSubstr("tokenizer_config.json: chat_template: expected")) << value;
  }
  write("m/tokenizer_config.json", "{");
  EXPECT_THAT(error_of([&] { template_of("m"); }), HasSubstr("tokenizer_config.json: expected JSON"));
  write("m/tokenizer_config.json", "[]");
  EXPECT_THAT(error_of([&] { template_of("m"); }), HasSubstr("expected a JSON object"));
}

TEST_F(Source, TheFamilyWithoutATemplateHasABuiltInOne) {
  write("m/config.json", R"({"model_type": "deepseek_v32"})");
  EXPECT_NE(template_of("m").value_or(""), "");
  write("m/chat_template.jinja", "own");
  EXPECT_EQ(template_of("m"), "own");
}

}  // namespace
}  // namespace hadal::test
