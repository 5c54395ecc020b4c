// safetensors: everything the header says is checked against the file before a tensor is handed out.
#include "model/safetensors.h"

#include <simdjson.h>

#include <optional>

#include "core/error.h"
#include "model/bytes.h"

namespace hadal {
namespace {

constexpr uint64_t longest_header = 100'000'000;  // as the reference implementation has it
constexpr size_t deepest_header = 16;             // nesting; a real header has 3 levels
constexpr size_t most_sides = 8;

namespace dom = simdjson::dom;

std::optional<DType> plain_type(std::string_view name) {
  for (const DType t :
       {DType::f32, DType::f16, DType::bf16, DType::f8e4m3, DType::i64, DType::i32, DType::i16, DType::i8, DType::u8, DType::boolean})
    if (name_of(t) == name) return t;
  return std::nullopt;
}

struct Entry {  // one tensor as the header describes it
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t begin, end;  // in bytes, from the end of the header
};

Entry read_entry(std::string_view name, dom::element value, const std::string& where) {
  const auto fail = [&](std::string_view key, std::string_view expected) -> Error {
    return Error("{}: tensor {}: expected {} under \"{}\"", where, name, expected, key);
  };
  dom::object object;
  if (value.get(object)) throw Error("{}: tensor {}: expected an object with dtype, shape and data_offsets", where, name);

  Entry entry{};
  std::string_view type;
  if (object["dtype"].get(type)) throw fail("dtype", "a string");
  const auto dtype = plain_type(type);
  if (!dtype)
    throw Error("{}: tensor {}: expected one of F32 F16 BF16 F8_E4M3 I64 I32 I16 I8 U8 BOOL under \"dtype\", found {}", where, name, type);
  entry.dtype = *dtype;

  dom::array sides, offsets;
  if (object["shape"].get(sides)) throw fail("shape", "an array of integers");
  for (const dom::element side : sides) {
    int64_t n = 0;
    if (side.get(n) || n < 0) throw fail("shape", "integers of 0 or more");
    if (entry.shape.size() == most_sides) throw fail("shape", "at most 8 sides");
    entry.shape.push_back(n);
  }
  if (object["data_offsets"].get(offsets) || offsets.size() != 2 || offsets.at(0).get(entry.begin) || offsets.at(1).get(entry.end))
    throw fail("data_offsets", "two integers of 0 or more");
  return entry;
}

}  // namespace

std::map<std::string, StoredTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& where) {
  ByteReader reader(bytes, where);
  const auto length = reader.number<uint64_t>("header length");
  if (length > longest_header || length > reader.left())
    throw Error("{}: header length: expected at most {}, found {} (truncated, or no safetensors file)", where,
                std::min<uint64_t>(longest_header, reader.left()), length);
  const simdjson::padded_string text(reader.text(length, "header"));
  const std::span<const std::byte> data = bytes.subspan(reader.at());

  dom::parser parser;
  dom::object header;
  if (const auto broken = parser.allocate(text.size(), deepest_header))
    throw Error("{}: header: {}", where, simdjson::error_message(broken));
  if (const auto broken = parser.parse(text).get(header))
    throw Error("{}: header: expected a JSON object: {}", where, simdjson::error_message(broken));

  std::map<std::string, StoredTensor> tensors;
  std::vector<Extent> extents;
  uint64_t last = 0;
  for (const auto [name, value] : header) {
    if (name == "__metadata__") continue;
    const Entry entry = read_entry(name, value, where);
    const int64_t values = count_values(entry.shape, name, where);
    if (entry.begin > entry.end || entry.end > data.size())
      throw Error("{}: tensor {}: expected bytes inside [0, {}), found [{}, {})", where, name, data.size(), entry.begin, entry.end);
    const uint64_t size = entry.end - entry.begin, expected = uint64_t(bytes_of(entry.dtype, values));
    if (size != expected)
      throw Error("{}: tensor {}: expected {} bytes for {} values of {}, found {}", where, name, expected, values, name_of(entry.dtype),
                  size);
    const auto [at, is_new] =
        tensors.try_emplace(std::string(name), StoredTensor{entry.dtype, entry.shape, {}, data.data() + entry.begin, size_t(size)});
    if (!is_new) throw Error("{}: tensor {} is in the header twice", where, name);
    extents.push_back({entry.begin, entry.end, at->first});
    last = std::max(last, entry.end);
  }
  check_extents(std::move(extents), data.size(), "tensor", where);
  if (last != data.size()) throw Error("{}: expected {} bytes of tensors after the header, found {}", where, last, data.size());
  return tensors;
}

}  // namespace hadal
