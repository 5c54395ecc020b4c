// A stack machine without recursion: containers are numbered nodes in one list, so that cycles and depth cost nothing to free.
#include "model/pickle.h"

#include <deque>
#include <unordered_map>

#include "core/error.h"
#include "model/bytes.h"

namespace hadal {
namespace {

constexpr size_t longest_pickle = 16 << 20;  // the pickle of a published shard is below 1 MB; every byte costs up to 64 in memory
constexpr size_t deepest_stack = 1 << 20;
constexpr size_t most_sides = 8;

enum class Kind : uint8_t {
  none,
  boolean,
  integer,
  real,
  text,
  tuple,
  list,
  dict,
  storage,
  tensor,
  ordered_dict,
  rebuild_v2,
  rebuild_v3,
  rebuild_parameter,
  type
};

struct Value {
  Kind kind = Kind::none;
  int64_t integer = 0;    // of a boolean or integer; the number of a tuple, list, dict, storage or tensor
  std::string_view text;  // of a text or type
};

struct Storage {
  std::string_view type, name;
};

struct Name {
  std::string_view module, name;
  Kind kind;
};
constexpr Name names[] = {
    {"collections", "OrderedDict", Kind::ordered_dict},
    {"torch._utils", "_rebuild_tensor_v2", Kind::rebuild_v2},
    {"torch._utils", "_rebuild_tensor_v3", Kind::rebuild_v3},
    {"torch._utils", "_rebuild_parameter", Kind::rebuild_parameter},
    {"torch", "FloatStorage", Kind::type},
    {"torch", "HalfStorage", Kind::type},
    {"torch", "BFloat16Storage", Kind::type},
    {"torch", "DoubleStorage", Kind::type},
    {"torch", "LongStorage", Kind::type},
    {"torch", "IntStorage", Kind::type},
    {"torch", "ShortStorage", Kind::type},
    {"torch", "CharStorage", Kind::type},
    {"torch", "ByteStorage", Kind::type},
    {"torch", "BoolStorage", Kind::type},
    {"torch.storage", "UntypedStorage", Kind::type},
    {"torch", "float8_e4m3fn", Kind::type},
};

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> pickle, const std::string& where) : in_(pickle, where), where_(where) {}

  std::map<std::string, PickledTensor> state_dict() {
    run();
    const Value root = pop();
    if (root.kind != Kind::dict) fail("expected a dictionary of tensors");
    std::map<std::string, PickledTensor> found;
    const auto& items = nodes_[inner_dict(root)];
    for (size_t i = 0; i < items.size(); i += 2)
      if (items[i].kind == Kind::text && items[i + 1].kind == Kind::tensor)
        found.insert_or_assign(std::string(items[i].text), tensors_[size_t(items[i + 1].integer)]);
    return found;
  }

 private:
  [[noreturn]] void fail(std::string_view reason) const { throw Error("{}: pickle, byte {}: {}", where_, in_.at(), reason); }

  size_t inner_dict(Value root) const {  // training scripts keep the state dict beside the optimizer's
    const auto& items = nodes_[size_t(root.integer)];
    for (const std::string_view key : {"state_dict", "model"})
      for (size_t i = 0; i < items.size(); i += 2)
        if (items[i].kind == Kind::text && items[i].text == key && items[i + 1].kind == Kind::dict) return size_t(items[i + 1].integer);
    return size_t(root.integer);
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  void push(Value value) {
    if (stack_.size() >= deepest_stack) fail("the stack is too deep");
    stack_.push_back(value);
  }
  Value pop() {
    if (stack_.size() <= floor()) fail("expected a value on the stack, found none");
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  std::vector<Value> pop_to_mark() {
    if (marks_.empty()) fail("expected a mark on the stack, found none");
    std::vector<Value> values(stack_.begin() + ptrdiff_t(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return values;
  }
  void push_node(Kind kind, std::vector<Value> items) {
    nodes_.push_back(std::move(items));
    push({kind, int64_t(nodes_.size() - 1), {}});
  }
  std::vector<Value> pop_few(size_t count) {
    std::vector<Value> values(count);
    while (count > 0) values[--count] = pop();
    return values;
  }
  void append(Kind kind, const std::vector<Value>& values, std::string_view expected) {
    if (stack_.size() <= floor() || stack_.back().kind != kind) fail(expected);
    auto& items = nodes_[size_t(stack_.back().integer)];
    items.insert(items.end(), values.begin(), values.end());
  }
  void set_items(const std::vector<Value>& values) {
    if (values.size() % 2 != 0) fail("expected a value for every key");
    append(Kind::dict, values, "expected a dictionary to set items in");
  }
  void keep(uint32_t slot) {
    if (stack_.size() <= floor()) fail("expected a value to keep, found none");
    memo_[slot] = stack_.back();
  }
  void recall(uint32_t slot) {
    const auto at = memo_.find(slot);
    if (at == memo_.end()) fail("expected a kept value, found none");
    push(at->second);
  }

  std::string_view line() {
    const auto rest = in_;
    size_t length = 0;
    while (in_.number<char>("a name") != '\n') ++length;
    return ByteReader(rest).text(length, "a name");
  }

  void global() {
    const std::string_view module = line(), name = line();
    for (const Name& n : names)
      if (n.module == module && n.name == name) return push({n.kind, 0, name});
    throw Error("{}: the pickle asks for {}.{}, which is no tensor: loading it would run code, and hadal does not", where_,
                module.substr(0, 100), name.substr(0, 100));
  }

  int64_t long_integer() {  // little-endian two's complement of any length
    const size_t length = in_.number<uint8_t>("an integer");
    if (length > 8) fail("expected an integer of at most 8 bytes");
    const auto bytes = in_.take(length, "an integer");
    uint64_t value = length > 0 && (uint8_t(bytes[length - 1]) & 0x80) ? ~uint64_t(0) : 0;
    for (size_t i = length; i-- > 0;) value = value << 8 | uint8_t(bytes[i]);
    return int64_t(value);
  }

  void persistent_id() {  // ("storage", type, name, device, number of values)
    const Value id = pop();
    if (id.kind != Kind::tuple) fail("expected a tuple as persistent id");
    const auto& parts = nodes_[size_t(id.integer)];
    if (parts.size() != 5 || parts[0].text != "storage" || parts[1].kind != Kind::type || parts[2].kind != Kind::text)
      fail("expected a persistent id of (\"storage\", type, name, device, size)");
    storages_.push_back({parts[1].text, parts[2].text});
    push({Kind::storage, int64_t(storages_.size() - 1), {}});
  }

  std::vector<int64_t> integers(const Value& tuple) const {
    if (tuple.kind != Kind::tuple) fail("expected a tuple of integers as shape and strides");
    const auto& items = nodes_[size_t(tuple.integer)];
    if (items.size() > most_sides) fail("expected at most 8 dimensions");
    std::vector<int64_t> values;
    for (const Value& item : items) {
      if (item.kind != Kind::integer) fail("expected a tuple of integers as shape and strides");
      values.push_back(item.integer);
    }
    return values;
  }

  void rebuild_tensor(const std::vector<Value>& arguments,
                      bool has_type) {  // (storage, offset, shape, strides, grad, hooks[, type][, metadata])
    const size_t least = has_type ? 7 : 6;
    if (arguments.size() < least || arguments.size() > least + 1 || arguments[0].kind != Kind::storage ||
        arguments[1].kind != Kind::integer)
      fail("expected a tensor of (storage, offset, shape, strides, ...)");
    if (has_type && arguments[6].kind != Kind::type) fail("expected a tensor's type");
    const Storage& storage = storages_[size_t(arguments[0].integer)];
    PickledTensor tensor{has_type ? arguments[6].text : storage.type, storage.name, arguments[1].integer, integers(arguments[2]),
                         integers(arguments[3])};
    if (tensor.shape.size() != tensor.strides.size()) fail("expected as many strides as dimensions");
    tensors_.push_back(std::move(tensor));
    push({Kind::tensor, int64_t(tensors_.size() - 1), {}});
  }

  void reduce() {
    const Value arguments = pop(), callee = pop();
    if (arguments.kind != Kind::tuple) fail("expected a tuple of arguments");
    const std::vector<Value>& values = nodes_[size_t(arguments.integer)];
    switch (callee.kind) {
      case Kind::ordered_dict:
        if (!values.empty()) fail("expected an OrderedDict without arguments");
        return push_node(Kind::dict, {});
      case Kind::rebuild_v2:
        return rebuild_tensor(values, false);
      case Kind::rebuild_v3:
        return rebuild_tensor(values, true);
      case Kind::rebuild_parameter:
        if (values.size() != 3 || values[0].kind != Kind::tensor) fail("expected a parameter of (tensor, grad, hooks)");
        return push(values[0]);
      default:
        fail("expected one of torch's rebuild functions to call");
    }
  }

  void build() {  // attributes of an OrderedDict (_metadata of a module): not needed
    pop();
    if (stack_.size() <= floor() || stack_.back().kind != Kind::dict) fail("expected a dictionary to give attributes to");
  }

  void run() {
    for (;;) {
      const auto opcode = in_.number<uint8_t>("an opcode");
      switch (opcode) {
        case '.':
          return;
        case 0x80:
          if (const auto version = in_.number<uint8_t>("protocol"); version != 2)
            fail("expected pickle protocol 2, as torch.save writes by default");
          break;
        case '(':
          marks_.push_back(stack_.size());
          if (marks_.size() > deepest_stack) fail("too many marks");
          break;
        case 'c':
          global();
          break;
        case 'q':
          keep(in_.number<uint8_t>("a slot"));
          break;
        case 'r':
          keep(in_.number<uint32_t>("a slot"));
          break;
        case 'h':
          recall(in_.number<uint8_t>("a slot"));
          break;
        case 'j':
          recall(in_.number<uint32_t>("a slot"));
          break;
        case 'X':
          push({Kind::text, 0, in_.text(in_.number<uint32_t>("a string"), "a string")});
          break;
        case 'K':
          push({Kind::integer, in_.number<uint8_t>("an integer"), {}});
          break;
        case 'M':
          push({Kind::integer, in_.number<uint16_t>("an integer"), {}});
          break;
        case 'J':
          push({Kind::integer, in_.number<int32_t>("an integer"), {}});
          break;
        case 0x8a:
          push({Kind::integer, long_integer(), {}});
          break;
        case 'G':
          in_.take(8, "a number");
          push({Kind::real, 0, {}});
          break;  // of a training script; not needed
        case 'N':
          push({});
          break;
        case 0x88:
          push({Kind::boolean, 1, {}});
          break;
        case 0x89:
          push({Kind::boolean, 0, {}});
          break;
        case '}':
          push_node(Kind::dict, {});
          break;
        case ']':
          push_node(Kind::list, {});
          break;
        case ')':
          push_node(Kind::tuple, {});
          break;
        case 't':
          push_node(Kind::tuple, pop_to_mark());
          break;
        case 0x85:
          push_node(Kind::tuple, pop_few(1));
          break;
        case 0x86:
          push_node(Kind::tuple, pop_few(2));
          break;
        case 0x87:
          push_node(Kind::tuple, pop_few(3));
          break;
        case 'a':
          append(Kind::list, pop_few(1), "expected a list to append to");
          break;
        case 'e':
          append(Kind::list, pop_to_mark(), "expected a list to append to");
          break;
        case 's':
          set_items(pop_few(2));
          break;
        case 'u':
          set_items(pop_to_mark());
          break;
        case 'Q':
          persistent_id();
          break;
        case 'R':
          reduce();
          break;
        case 'b':
          build();
          break;
        default:
          throw Error("{}: pickle, byte {}: opcode {:#04x} is none that torch.save emits", where_, in_.at() - 1, opcode);
      }
    }
  }

  ByteReader in_;
  const std::string& where_;
  std::vector<Value> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::deque<std::vector<Value>> nodes_;
  std::vector<Storage> storages_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::map<std::string, PickledTensor> unpickle_state_dict(std::span<const std::byte> pickle, const std::string& where) {
  if (pickle.size() > longest_pickle) throw Error("{}: pickle: expected at most {} bytes, found {}", where, longest_pickle, pickle.size());
  return Unpickler(pickle, where).state_dict();
}

}  // namespace hadal
