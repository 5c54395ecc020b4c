// torch .bin: the archive, the pickle that may run nothing, and tensors placed in their storages.
#include "model/torch_bin.h"

#include <gmock/gmock.h>

#include "made_files.h"

namespace hadal::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

struct MadeZip {
  Bytes members, directory;
  uint16_t count = 0, method = 0, flags = 0;
  uint32_t unpacked_more = 0;  // makes the sizes differ, as compression does
  bool zip64 = false;

  MadeZip& add(const std::string& name, const std::string& content) {
    const auto size = uint32_t(content.size()), at = uint32_t(members.text.size());
    members.put(0x04034b50u)
        .put(uint16_t(45))
        .put(flags)
        .put(method)
        .put(0u)
        .put(0u)
        .put(size)
        .put(size)
        .put(uint16_t(name.size()))
        .put(uint16_t(3));
    members.put_text(name).put_text("pad").put_text(content);
    const std::string extra = zip64 ? Bytes()
                                          .put(uint16_t(9))
                                          .put(uint16_t(1))
                                          .put_text("x")
                                          .put(uint16_t(1))
                                          .put(uint16_t(24))
                                          .put(uint64_t(size) + unpacked_more)
                                          .put(uint64_t(size))
                                          .put(uint64_t(at))
                                          .text
                                    : "";
    const uint32_t far = 0xffffffff;
    directory.put(0x02014b50u)
        .put(uint32_t(45))
        .put(flags)
        .put(method)
        .put(0u)
        .put(0u)
        .put(zip64 ? far : size)
        .put(zip64 ? far : size + unpacked_more);
    directory.put(uint16_t(name.size()))
        .put(uint16_t(extra.size()))
        .put(uint16_t(0))
        .put(uint64_t(0))
        .put(zip64 ? far : at)
        .put_text(name)
        .put_text(extra);
    ++count;
    return *this;
  }
  std::string file() const {
    Bytes out = members;
    const uint64_t begin = out.text.size();
    out.put_text(directory.text);
    const uint64_t end64 = out.text.size();
    if (zip64) {
      out.put(0x06064b50u)
          .put(uint64_t(44))
          .put(0u)
          .put(0u)
          .put(0u)
          .put(uint64_t(count))
          .put(uint64_t(count))
          .put(uint64_t(directory.text.size()))
          .put(begin);
      out.put(0x07064b50u).put(0u).put(end64).put(1u);
    }
    return out.put(0x06054b50u)
        .put(0u)
        .put(count)
        .put(count)
        .put(uint32_t(directory.text.size()))
        .put(zip64 ? 0xffffffffu : uint32_t(begin))
        .put(uint16_t(0))
        .text;
  }
};

// Pieces of a pickle as torch.save writes it.
std::string unicode(const std::string& text) { return Bytes().put('X').put(uint32_t(text.size())).put_text(text).text; }
std::string integer(int64_t value) { return Bytes().put('\x8a').put(uint8_t(8)).put(value).text; }
std::string global(const std::string& module, const std::string& name) { return fmt::format("c{}\n{}\n", module, name); }
std::string tuple(const std::vector<int64_t>& values) {
  std::string out = "(";
  for (const int64_t v : values) out += integer(v);
  return out + "t";
}
const std::string protocol = "\x80\x02";
const std::string ordered_dict = global("collections", "OrderedDict") + ")R";

struct MadeTensor {
  std::string name = "w", type = "FloatStorage", storage = "0";
  int64_t offset = 0;
  std::vector<int64_t> shape = {2, 3}, strides = {3, 1};
  std::string pickle() const {
    return global("torch._utils", "_rebuild_tensor_v2") + "((" + unicode("storage") + global("torch", type) + unicode(storage) +
           unicode("cpu") + integer(6) + "tQ" + integer(offset) + tuple(shape) + tuple(strides) + "\x89" + ordered_dict + "tR";
  }
};
std::string state_dict(const std::vector<MadeTensor>& tensors) {
  std::string out = protocol + ordered_dict + "(";
  for (const MadeTensor& t : tensors) out += unicode(t.name) + t.pickle();
  return out + "u.";
}
const std::string six = floats({0, 1, 2, 3, 4, 5});
std::string archive(const std::string& pickle) {
  return MadeZip().add("m/data.pkl", pickle).add("m/byteorder", "little").add("m/data/0", six).file();
}

std::map<std::string, StoredTensor> parse(const std::string& file) { return parse_torch_bin(view_of(file), "x.bin"); }
std::string error_for(const std::string& file) {
  return error_of([&] { parse(file); });
}
std::string error_for_pickle(const std::string& body) { return error_for(archive(protocol + body)); }

TEST(TorchBin, ReadsTensorsInPlace) {
  const std::string file = archive(state_dict({{}}));
  const auto tensors = parse(file);
  const StoredTensor& w = tensors.at("w");
  EXPECT_EQ(w.dtype, DType::f32);
  EXPECT_THAT(w.shape, ElementsAre(2, 3));
  EXPECT_TRUE(w.strides.empty());
  EXPECT_EQ(w.bytes, 24u);
  EXPECT_EQ(w.data, view_of(file).data() + file.find(six));
  EXPECT_THAT(values_of(w), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(TorchBin, Zip64AndMembersAtTheTop) {
  MadeZip zip;
  zip.zip64 = true;
  const std::string file = zip.add("data.pkl", state_dict({{}})).add("data/0", six).file();
  EXPECT_THAT(values_of(parse(file).at("w")), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(TorchBin, StridesAreKeptAndStoragesShared) {
  const std::string file = archive(state_dict({{.name = "t", .shape = {3, 2}, .strides = {1, 3}},
                                               {.name = "part", .offset = 4, .shape = {2}, .strides = {1}},
                                               {.name = "one", .shape = {1, 6}, .strides = {99, 1}}}));
  const auto tensors = parse(file);
  EXPECT_THAT(tensors.at("t").strides, ElementsAre(1, 3));
  EXPECT_THAT(values_of(tensors.at("t")), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(values_of(tensors.at("part")), ElementsAre(4, 5));
  EXPECT_TRUE(tensors.at("one").strides.empty()) << "the stride of a side of one says nothing";
}

TEST(TorchBin, StateDictsMayBeNestedBesideOtherThings) {
  const std::string inner = std::string("}") + unicode("w") + MadeTensor().pickle() + "s";
  for (const std::string key : {"state_dict", "model"}) {
    const std::string file = archive(protocol + "}(" + unicode("epoch") + "K\x03" + unicode(key) + inner + unicode("notes") + "](NG" +
                                     std::string(8, 0) + "e" + "u.");
    EXPECT_TRUE(parse(file).contains("w")) << key;
  }
}

TEST(TorchBin, ParametersAndAttributesOfModulesAreUnderstood) {
  const std::string parameter = global("torch._utils", "_rebuild_parameter") + "(" + MadeTensor().pickle() + "\x88" + ordered_dict + "tR";
  const std::string file = archive(protocol + ordered_dict + unicode("w") + parameter + "s}" + unicode("_metadata") + ordered_dict + "sb.");
  EXPECT_TRUE(parse(file).contains("w"));
}

TEST(TorchBin, KeptValuesAreRecalled) {
  const std::string pickle =
      protocol + "}" + unicode("a") + MadeTensor().pickle() + std::string("q\x07s", 3) + unicode("b") + std::string("h\x07s.", 4);
  EXPECT_EQ(parse(archive(pickle)).size(), 2u);
}

TEST(TorchBin, AnythingThatWouldRunCodeIsRefusedByName) {
  for (const auto& [module, name] : {std::pair{"os", "system"},
                                     {"builtins", "eval"},
                                     {"torch", "load"},
                                     {"torch._utils", "_rebuild_qtensor"},
                                     {"collections", "Counter"},
                                     {"", ""}})
    EXPECT_THAT(error_for_pickle(global(module, name) + unicode("echo") + "\x85R."),
                AllOf(HasSubstr(fmt::format("the pickle asks for {}.{}", module, name)), HasSubstr("would run code")));
  EXPECT_THAT(error_for_pickle(global("torch", "FloatStorage") + ")R."), HasSubstr("expected one of torch's rebuild functions to call"));
  EXPECT_THAT(error_for_pickle("K\x01)R."), HasSubstr("expected one of torch's rebuild functions to call"));
  for (const char opcode : {'i', 'o', '\x81', '\x92', '\x93', '\x94', '\x82', 'P', 'S', 'B', 'I'})
    EXPECT_THAT(error_for_pickle(std::string(1, opcode) + "x\nx\n."),
                HasSubstr(fmt::format("opcode {:#04x} is none that torch.save emits", uint8_t(opcode))));
}

TEST(TorchBin, BrokenPicklesAreErrors) {
  EXPECT_THAT(error_for_pickle(""), HasSubstr("truncated: expected 1 bytes of an opcode"));
  EXPECT_THAT(error_for_pickle("."), HasSubstr("expected a value on the stack, found none"));
  EXPECT_THAT(error_for_pickle("]."), HasSubstr("expected a dictionary of tensors"));
  EXPECT_THAT(error_for_pickle("t."), HasSubstr("expected a mark on the stack"));
  EXPECT_THAT(error_for_pickle("h\x01."), HasSubstr("expected a kept value, found none"));
  EXPECT_THAT(error_for_pickle("}(Nu."), HasSubstr("expected a value for every key"));
  EXPECT_THAT(error_for_pickle("](NNu."), HasSubstr("expected a dictionary to set items in"));
  EXPECT_THAT(error_for_pickle("}(s."), HasSubstr("expected a value on the stack, found none"));
  EXPECT_THAT(error_for_pickle("NQ."), HasSubstr("expected a tuple as persistent id"));
  EXPECT_THAT(error_for_pickle(")Q."), HasSubstr("expected a persistent id of"));
  EXPECT_THAT(error_for_pickle("NNb."), HasSubstr("expected a dictionary to give attributes to"));
  EXPECT_THAT(error_for_pickle("X\xff\xff\xff\xff"
                               "abc"),
              HasSubstr("truncated: expected 4294967295 bytes of a string"));
  EXPECT_THAT(error_for_pickle(std::string("\x8a\x09") + std::string(9, 0) + "."), HasSubstr("an integer of at most 8 bytes"));
  EXPECT_THAT(error_for(archive("\x80\x04.")), HasSubstr("expected pickle protocol 2"));
  EXPECT_THAT(error_for_pickle(std::string((1 << 20) + 1, 'N')), HasSubstr("the stack is too deep"));
  EXPECT_THAT(error_for_pickle(std::string((1 << 20) + 1, '(')), HasSubstr("too many marks"));
  EXPECT_THAT(error_for_pickle(std::string(17 << 20, '.')), HasSubstr("pickle: expected at most 16777216 bytes"));
}

TEST(TorchBin, DeepAndCyclicContainersAreHarmless) {
  // A dictionary that holds 200,000 lists inside one another, and a list that holds itself.
  const std::string deep = std::string(200'000, ']') + std::string(199'999, 'a');
  const std::string cycle = std::string("]q\x01h\x01", 5) + "a";
  EXPECT_TRUE(parse(archive(protocol + "}" + unicode("deep") + deep + "s" + unicode("cycle") + cycle + "s.")).empty());
}

TEST(TorchBin, TensorsMustLieInTheirStorage) {
  EXPECT_THAT(error_for(archive(state_dict({{.offset = 1}}))),
              HasSubstr("x.bin: tensor w: expected its values inside a storage of 6 values, found offset 1 and an end at 7"));
  EXPECT_THAT(error_for(archive(state_dict({{.offset = -1}}))), HasSubstr("found offset -1 and strides out of range"));
  EXPECT_THAT(error_for(archive(state_dict({{.strides = {3, -1}}}))), HasSubstr("strides out of range"));
  EXPECT_THAT(error_for(archive(state_dict({{.shape = {-2, 3}}}))), HasSubstr("tensor w: expected sides of 0 or more, found -2"));
  EXPECT_THAT(error_for(archive(state_dict({{.shape = {2147483647, 2147483647, 2147483647}, .strides = {0, 0, 0}}}))),
              HasSubstr("more values than any file can hold"));
  EXPECT_THAT(error_for(archive(state_dict({{.shape = {65536, 2}, .strides = {65536, 1}}}))), HasSubstr("an end at"));
  for (const int64_t stride : {INT64_MAX, INT64_MAX / 2})  // the place of the last value does not fit 64 bits
    EXPECT_THAT(error_for(archive(state_dict({{.shape = {3, 3}, .strides = {stride, stride}}}))), HasSubstr("strides out of range"));
  EXPECT_THAT(error_for(archive(state_dict({{.offset = INT64_MAX, .shape = {1}, .strides = {1}}}))), HasSubstr("strides out of range"));
  EXPECT_THAT(error_for(archive(state_dict({{.shape = {2, 3}, .strides = {1}}}))), HasSubstr("expected as many strides as dimensions"));
  EXPECT_THAT(error_for(archive(state_dict({{.shape = std::vector<int64_t>(9, 1), .strides = std::vector<int64_t>(9, 1)}}))),
              HasSubstr("expected at most 8 dimensions"));
  EXPECT_THAT(error_for(archive(state_dict({{.storage = "9"}}))), HasSubstr("expected a member m/data/9 in the archive, found none"));
  EXPECT_THAT(error_for(archive(state_dict({{.type = "DoubleStorage", .shape = {3}, .strides = {1}}}))),
              HasSubstr("tensor w: type DoubleStorage is not supported; expected float32"));
  EXPECT_TRUE(parse(archive(state_dict({{.shape = {0, 3}}}))).contains("w"));
}

TEST(TorchBin, BrokenArchivesAreErrors) {
  EXPECT_THAT(error_for("\x80\x02\x8a\nl\xfc\x9c\x46\xf9"),
              AllOf(HasSubstr("expected a zip archive"), HasSubstr("torch.save(torch.load(path), path)")));
  EXPECT_THAT(error_for("PK\x03\x04"), HasSubstr("expected the directory of a zip archive at the end"));
  const std::string whole = archive(state_dict({{}}));
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_THAT(error_for(whole.substr(0, size)), HasSubstr("x.bin: ")) << size;
  MadeZip compressed;
  compressed.method = 8;
  EXPECT_THAT(error_for(compressed.add("m/data.pkl", "abc").file()),
              AllOf(HasSubstr("member m/data.pkl is compressed"), HasSubstr("save it again")));
  MadeZip longer;
  longer.unpacked_more = 5;
  EXPECT_THAT(error_for(longer.add("m/data.pkl", "abc").file()), HasSubstr("member m/data.pkl is compressed"));
  MadeZip encrypted;
  encrypted.flags = 1;
  EXPECT_THAT(error_for(encrypted.add("m/data.pkl", "abc").file()), HasSubstr("member m/data.pkl is encrypted"));
  EXPECT_THAT(error_for(MadeZip().add("a", "1").add("a", "2").file()), HasSubstr("member a is in the archive twice"));
  EXPECT_THAT(error_for(MadeZip().add("a", "1").file()), HasSubstr("expected a member data.pkl in the archive, found none"));
  EXPECT_THAT(error_for(MadeZip().add("m/data.pkl", state_dict({{}})).add("m/byteorder", "big").add("m/data/0", six).file()),
              HasSubstr("byteorder: expected little, found big"));
}

TEST(TorchBin, DirectoriesThatLieAreErrors) {
  const std::string whole = archive(state_dict({{}}));
  const auto with = [&](size_t from_end, auto value) {
    std::string file = whole;
    std::memcpy(file.data() + file.size() - from_end, &value, sizeof value);
    return error_for(file);
  };
  EXPECT_THAT(with(12, uint16_t(60000)), HasSubstr("a zip directory of 60000 members"));
  EXPECT_THAT(with(6, 0x7fffffffu), HasSubstr("at byte 2147483647 does not fit into"));
  EXPECT_THAT(with(6, 0u), HasSubstr("expected a directory entry of a zip archive at byte 0"));
  std::string overlapping = whole;  // the second member's header is said to be where the first one's is
  const size_t second = overlapping.find("PK\x01\x02", overlapping.find("PK\x01\x02") + 4);
  std::memset(overlapping.data() + second + 42, 0, 4);
  EXPECT_THAT(error_for(overlapping), HasSubstr("overlap"));
}

}  // namespace
}  // namespace hadal::test
