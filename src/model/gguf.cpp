// GGUF: counts, strings and offsets are checked against the file before anything is allocated or handed out.
#include "model/gguf.h"

#include <limits>

#include "core/error.h"
#include "model/bytes.h"
#include "model/gguf_names.h"

namespace hadal {
namespace {

enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

constexpr uint32_t most_sides = 4;
constexpr uint64_t longest_name = 65535;  // of a key or a tensor
constexpr uint64_t widest_alignment = 1 << 20;
constexpr size_t least_metadata_bytes = 13, least_tensor_bytes = 24;  // of one entry with an empty name

struct TensorType {
  uint32_t id;
  const char* name;
  std::optional<DType> dtype;  // empty: known to ggml but not read here
};
constexpr TensorType tensor_types[] = {
    {0, "F32", DType::f32},    {1, "F16", DType::f16},    {2, "Q4_0", DType::q4_0},  {3, "Q4_1", DType::q4_1},  {6, "Q5_0", DType::q5_0},
    {7, "Q5_1", DType::q5_1},  {8, "Q8_0", DType::q8_0},  {9, "Q8_1", {}},           {10, "Q2_K", DType::q2_k}, {11, "Q3_K", DType::q3_k},
    {12, "Q4_K", DType::q4_k}, {13, "Q5_K", DType::q5_k}, {14, "Q6_K", DType::q6_k}, {15, "Q8_K", {}},          {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},        {18, "IQ3_XXS", {}},       {19, "IQ1_S", {}},         {20, "IQ4_NL", {}},        {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},         {23, "IQ4_XS", {}},        {24, "I8", DType::i8},     {25, "I16", DType::i16},   {26, "I32", DType::i32},
    {27, "I64", DType::i64},   {28, "F64", {}},           {29, "IQ1_M", {}},         {30, "BF16", DType::bf16}, {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},         {39, "MXFP4", {}},
};

DType tensor_type(uint32_t id, std::string_view tensor, const std::string& where) {
  for (const TensorType& t : tensor_types) {
    if (t.id != id) continue;
    if (t.dtype) return *t.dtype;
    throw Error("{}: tensor {}: type {} is not supported; expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K..Q6_K or I8..I64",
                where, tensor, t.name);
  }
  throw Error("{}: tensor {}: unknown type number {}", where, tensor, id);
}

std::string_view read_string(ByteReader& in, std::string_view what, uint64_t longest = std::numeric_limits<uint64_t>::max()) {
  const auto length = in.number<uint64_t>(what);
  if (length > longest) throw Error("{}: length of {}: expected at most {}, found {}", in.where(), what, longest, length);
  return in.text(length, what);
}

std::optional<size_t> width_of(ValueType type) {  // bytes of a number or boolean
  switch (type) {
    case ValueType::u8:
    case ValueType::i8:
    case ValueType::boolean:
      return 1;
    case ValueType::u16:
    case ValueType::i16:
      return 2;
    case ValueType::u32:
    case ValueType::i32:
    case ValueType::f32:
      return 4;
    case ValueType::u64:
    case ValueType::i64:
    case ValueType::f64:
      return 8;
    default:
      return std::nullopt;
  }
}

int64_t read_integer(ByteReader& in, ValueType type, std::string_view key) {
  switch (type) {
    case ValueType::u8:
      return in.number<uint8_t>(key);
    case ValueType::i8:
      return in.number<int8_t>(key);
    case ValueType::u16:
      return in.number<uint16_t>(key);
    case ValueType::i16:
      return in.number<int16_t>(key);
    case ValueType::u32:
      return in.number<uint32_t>(key);
    case ValueType::i32:
      return in.number<int32_t>(key);
    case ValueType::boolean:
      return in.number<uint8_t>(key) != 0;
    case ValueType::i64:
      return in.number<int64_t>(key);
    default:
      break;
  }
  const auto value = in.number<uint64_t>(key);
  if (value > uint64_t(INT64_MAX)) throw Error("{}: key {}: expected at most {}, found {}", in.where(), key, INT64_MAX, value);
  return int64_t(value);
}

double read_real(ByteReader& in, ValueType type, std::string_view key) {
  return type == ValueType::f32 ? double(in.number<float>(key)) : in.number<double>(key);
}

bool is_real(ValueType type) { return type == ValueType::f32 || type == ValueType::f64; }

GgufValue read_array(ByteReader& in, std::string_view key) {
  const auto type = ValueType(in.number<uint32_t>(key));
  const auto count = in.number<uint64_t>(key);
  const size_t least = type == ValueType::text ? 8 : width_of(type).value_or(0);
  if (least == 0)
    throw Error("{}: key {}: expected an array of numbers, booleans or strings, found elements of type {}", in.where(), key,
                uint32_t(type));
  if (count > in.left() / least)
    throw Error("{}: key {}: an array of {} values does not fit into the {} bytes left", in.where(), key, count, in.left());
  const auto fill = [&](auto values, auto read) -> GgufValue {
    values.reserve(size_t(count));
    for (uint64_t i = 0; i < count; ++i) values.push_back(read());
    return values;
  };
  if (type == ValueType::text) return fill(std::vector<std::string>(), [&] { return std::string(read_string(in, key)); });
  if (is_real(type)) return fill(std::vector<double>(), [&] { return read_real(in, type, key); });
  return fill(std::vector<int64_t>(), [&] { return read_integer(in, type, key); });
}

GgufValue read_value(ByteReader& in, std::string_view key) {
  const auto type = ValueType(in.number<uint32_t>(key));
  if (type == ValueType::array) return read_array(in, key);
  if (type == ValueType::text) return std::string(read_string(in, key));
  if (type == ValueType::boolean) return in.number<uint8_t>(key) != 0;
  if (is_real(type)) return read_real(in, type, key);
  if (width_of(type)) return read_integer(in, type, key);
  throw Error("{}: key {}: unknown value type {}", in.where(), key, uint32_t(type));
}

struct Entry {  // one tensor as the file describes it
  std::string name;
  StoredTensor tensor;
  uint64_t offset;  // from the start of the data
};

Entry read_entry(ByteReader& in) {
  Entry entry{std::string(read_string(in, "a tensor's name", longest_name)), {}, 0};
  const auto sides = in.number<uint32_t>("a tensor's number of dimensions");
  if (sides > most_sides) throw Error("{}: tensor {}: expected at most {} dimensions, found {}", in.where(), entry.name, most_sides, sides);
  std::vector<int64_t>& shape = entry.tensor.shape;
  for (uint32_t i = 0; i < sides; ++i) {
    const auto side = in.number<uint64_t>("a tensor's shape");
    if (side == 0 || side > uint64_t(INT64_MAX))
      throw Error("{}: tensor {}: expected sides of 1 or more, found {}", in.where(), entry.name, int64_t(side));
    shape.insert(shape.begin(), int64_t(side));  // GGUF has the innermost first
  }
  entry.tensor.dtype = tensor_type(in.number<uint32_t>("a tensor's type"), entry.name, in.where());
  entry.offset = in.number<uint64_t>("a tensor's offset");

  const int64_t values = count_values(shape, entry.name, in.where());
  const DTypeInfo info = info_of(entry.tensor.dtype);
  if ((sides == 0 ? 1 : shape.back()) % info.block_values != 0)
    throw Error("{}: tensor {}: expected rows of a multiple of {} values for {}, found {}", in.where(), entry.name, info.block_values,
                info.name, sides == 0 ? 1 : shape.back());
  entry.tensor.bytes = size_t(bytes_of(entry.tensor.dtype, values));
  return entry;
}

void check_head(ByteReader& in) {
  const std::string_view magic = in.text(4, "magic");
  if (magic != "GGUF") throw Error("{}: expected a GGUF file (magic \"GGUF\")", in.where());
  const auto version = in.number<uint32_t>("version");
  if (version == 0x02000000 || version == 0x03000000)
    throw Error("{}: expected little-endian numbers, found a big-endian file", in.where());
  if (version != 2 && version != 3) throw Error("{}: expected GGUF version 2 or 3, found {}", in.where(), version);
}

}  // namespace

Gguf::Gguf(const std::filesystem::path& path) : path_(path) {
  file_ = std::make_shared<const MappedFile>(path);
  owner_ = file_;
  parse(file_->bytes());
}

Gguf::Gguf(std::shared_ptr<const void> owner, std::span<const std::byte> bytes, std::filesystem::path path)
    : owner_(std::move(owner)), path_(std::move(path)) {
  parse(bytes);
}

void Gguf::parse(std::span<const std::byte> bytes) {
  const std::string where = path_.string();
  ByteReader in(bytes, where);
  check_head(in);
  const auto tensors = in.number<uint64_t>("number of tensors"), keys = in.number<uint64_t>("number of metadata keys");
  if (tensors > in.left() / least_tensor_bytes || keys > in.left() / least_metadata_bytes)
    throw Error("{}: {} tensors and {} metadata keys do not fit into the {} bytes left", where, tensors, keys, in.left());

  for (uint64_t i = 0; i < keys; ++i) {
    const std::string key(read_string(in, "a metadata key", longest_name));
    if (!metadata_.try_emplace(key, read_value(in, key)).second) throw Error("{}: metadata key {} is there twice", where, key);
  }
  head_ = bytes.first(in.at());
  const auto alignment = uint64_t(integer("general.alignment", 32));
  if (alignment > widest_alignment || !std::has_single_bit(alignment))
    throw Error("{}: general.alignment: expected a power of two up to {}, found {}", where, widest_alignment, int64_t(alignment));

  std::vector<Entry> entries;
  for (uint64_t i = 0; i < tensors; ++i) entries.push_back(read_entry(in));
  if (const size_t padding = size_t(-in.at() & (alignment - 1)); !entries.empty()) in.take(padding, "padding");
  const std::span<const std::byte> data = bytes.subspan(in.at());

  std::vector<Extent> extents;
  for (Entry& e : entries) {
    if (e.offset % alignment != 0)
      throw Error("{}: tensor {}: expected an offset that is a multiple of {}, found {}", where, e.name, alignment, e.offset);
    if (e.offset > data.size() || e.tensor.bytes > data.size() - e.offset)
      throw Error("{}: tensor {}: expected {} bytes at {} inside the {} bytes of data (truncated?)", where, e.name, e.tensor.bytes,
                  e.offset, data.size());
    e.tensor.data = data.data() + e.offset;
    const auto [at, is_new] = stored_.try_emplace(std::move(e.name), std::move(e.tensor));
    if (!is_new) throw Error("{}: tensor {} is there twice", where, at->first);
    extents.push_back({e.offset, e.offset + at->second.bytes, at->first});
  }
  check_extents(std::move(extents), data.size(), "tensor", where);
}

template <class T>
const T* Gguf::find(const std::string& key, const char* expected) const {
  const auto at = metadata_.find(key);
  if (at == metadata_.end()) return nullptr;
  if (const T* value = std::get_if<T>(&at->second)) return value;
  throw Error("{}: key {}: expected {}", path_.string(), key, expected);
}

int64_t Gguf::integer(const std::string& key) const {
  const int64_t* value = find<int64_t>(key, "an integer");
  if (!value) throw Error("{}: expected an integer under the key {}, found none", path_.string(), key);
  return *value;
}

int64_t Gguf::integer(const std::string& key, int64_t otherwise) const {
  const int64_t* value = find<int64_t>(key, "an integer");
  return value ? *value : otherwise;
}

double Gguf::real(const std::string& key, double otherwise) const {
  const double* value = find<double>(key, "a number with a fraction");
  return value ? *value : otherwise;
}

bool Gguf::flag(const std::string& key, bool otherwise) const {
  const bool* value = find<bool>(key, "true or false");
  return value ? *value : otherwise;
}

const std::string* Gguf::text(const std::string& key) const { return find<std::string>(key, "a string"); }
const std::vector<std::string>* Gguf::texts(const std::string& key) const {
  return find<std::vector<std::string>>(key, "an array of strings");
}
const std::vector<int64_t>* Gguf::integers(const std::string& key) const { return find<std::vector<int64_t>>(key, "an array of integers"); }
const std::vector<double>* Gguf::reals(const std::string& key) const { return find<std::vector<double>>(key, "an array of numbers"); }

std::string Gguf::architecture() const {
  const std::string* name = text("general.architecture");
  if (!name) throw Error("{}: expected a string under the key general.architecture, found none", path_.string());
  return *name;
}

std::string Gguf::metadata_alone() const {
  std::string text(reinterpret_cast<const char*>(head_.data()), head_.size());
  constexpr size_t count_at = 8, count_bytes = 8;  // of tensors, behind magic and version
  std::fill_n(text.begin() + count_at, count_bytes, '\0');
  return text;
}

Checkpoint Gguf::checkpoint() const {
  if (const int64_t parts = integer("split.count", 1); parts > 1)
    throw Error("{}: one of {} parts of a split model; join them first (llama-gguf-split --merge)", path_.string(), parts);
  Checkpoint checkpoint = published_checkpoint(stored_, path_.string());
  if (file_) checkpoint.files = {file_};
  checkpoint.bytes.push_back(owner_);
  return checkpoint;
}

}  // namespace hadal
