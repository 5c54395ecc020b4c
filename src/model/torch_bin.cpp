// torch.save files: the archive's pickle says what the tensors are, its members hold their bytes.
#include "model/torch_bin.h"

#include <optional>

#include "core/error.h"
#include "model/bytes.h"
#include "model/pickle.h"
#include "model/zip.h"

namespace hadal {
namespace {

using Members = std::map<std::string, std::span<const std::byte>>;

struct StorageType {
  std::string_view torch;
  DType dtype;
};
constexpr StorageType storage_types[] = {
    {"FloatStorage", DType::f32}, {"HalfStorage", DType::f16},     {"BFloat16Storage", DType::bf16}, {"float8_e4m3fn", DType::f8e4m3},
    {"LongStorage", DType::i64},  {"IntStorage", DType::i32},      {"ShortStorage", DType::i16},     {"CharStorage", DType::i8},
    {"ByteStorage", DType::u8},   {"BoolStorage", DType::boolean},
};

DType dtype_of(std::string_view type, const std::string& tensor, const std::string& where) {
  for (const StorageType& t : storage_types)
    if (t.torch == type) return t.dtype;
  throw Error("{}: tensor {}: type {} is not supported; expected float32, float16, bfloat16, float8_e4m3fn, bool or an integer type", where,
              tensor, type);
}

bool is_contiguous(const PickledTensor& t) {
  int64_t expected = 1;
  for (size_t side = t.shape.size(); side-- > 0;) {
    if (t.shape[side] != 1 && t.strides[side] != expected) return false;
    expected *= t.shape[side];
  }
  return true;
}

// One past the highest value that the tensor touches, counted from the start of its storage; empty when it does not fit 64 bits.
std::optional<int64_t> end_of(const PickledTensor& t) {
  int64_t last = t.offset, step = 0;
  if (t.offset < 0) return std::nullopt;
  for (size_t side = 0; side < t.shape.size(); ++side)
    if (t.strides[side] < 0 || __builtin_mul_overflow(t.shape[side] - 1, t.strides[side], &step) ||
        __builtin_add_overflow(last, step, &last))
      return std::nullopt;
  if (last == INT64_MAX) return std::nullopt;
  return last + 1;
}

StoredTensor place(const PickledTensor& t, const std::string& name, std::span<const std::byte> storage, const std::string& where) {
  StoredTensor tensor{dtype_of(t.type, name, where), t.shape, {}, storage.data(), 0};
  const int64_t count = count_values(t.shape, name, where);
  if (count == 0) return tensor;
  const size_t size = size_t(info_of(tensor.dtype).block_bytes);
  const auto held = int64_t(storage.size() / size);
  const auto end = end_of(t);
  if (!end || *end > held)
    throw Error("{}: tensor {}: expected its values inside a storage of {} values, found offset {} and {}", where, name, held, t.offset,
                end ? fmt::format("an end at {}", *end) : "strides out of range");
  tensor.data += size_t(t.offset) * size;
  tensor.bytes = size_t(*end - t.offset) * size;
  if (!is_contiguous(t)) tensor.strides = t.strides;
  return tensor;
}

const std::span<const std::byte>& member(const Members& members, const std::string& name, const std::string& where) {
  const auto at = members.find(name);
  if (at == members.end()) throw Error("{}: expected a member {} in the archive, found none", where, name);
  return at->second;
}

std::string folder_of_pickle(const Members& members, const std::string& where) {  // "archive/", whatever its name
  constexpr std::string_view pickle = "data.pkl";
  for (const auto& [name, content] : members)
    if (name == pickle || name.ends_with("/data.pkl")) return name.substr(0, name.size() - pickle.size());
  throw Error("{}: expected a member data.pkl in the archive, found none", where);
}

}  // namespace

std::map<std::string, StoredTensor> parse_torch_bin(std::span<const std::byte> bytes, const std::string& where) {
  if (bytes.size() < 4 || ByteReader(bytes, where).text(2, "magic") != "PK")
    throw Error(
        "{}: expected a zip archive, as torch.save writes since torch 1.6; an older file becomes one by torch.save(torch.load(path), path)",
        where);
  const Members members = zip_members(bytes, where);
  const std::string folder = folder_of_pickle(members, where);
  if (const auto order = members.find(folder + "byteorder"); order != members.end()) {
    const std::string_view found(reinterpret_cast<const char*>(order->second.data()), order->second.size());
    if (found != "little") throw Error("{}: byteorder: expected little, found {}", where, found.substr(0, 20));
  }
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, pickled] : unpickle_state_dict(member(members, folder + "data.pkl", where), where))
    tensors.emplace(name, place(pickled, name, member(members, folder + "data/" + std::string(pickled.storage), where), where));
  return tensors;
}

}  // namespace hadal
