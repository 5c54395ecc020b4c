// What a template computes with: Python's plain values, immutable and shared, under the bounds of one rendering.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hadal::jinja {

using Integer = __int128;  // every integer of a JSON text fits; what leaves it is an Error

// A hostile template must end soon and small: each value that is made and each node that runs is paid for.
struct Bounds {
  int64_t steps = 20'000'000;                                  // a few seconds at most
  int64_t bytes = int64_t(1) << 30;                            // made in all, not alive at once
  int64_t value_bytes = int64_t(64) << 20;                     // of one text or list, and of the output
  std::function<std::string(const std::string&)> shield = {};  // of what a text turns out to say when it is decoded; empty: as it is
  void step(int64_t count = 1);
  void make(size_t size);  // one value of `size` bytes
};
constexpr int max_data_depth = 200;  // lists in lists: bounds the recursion of printing, comparing and freeing

struct Value;
struct Sequence;
struct Dict;
struct Callable;
struct Loop;
struct Namespace;
using Text = std::shared_ptr<const std::string>;
struct None {};
struct Undefined {
  Text reason;  // the message when it is used for more than printing or testing
};

struct Value {
  using Data = std::variant<Undefined, None, bool, Integer, double, Text, std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                            std::shared_ptr<const Callable>, std::shared_ptr<const Loop>, Namespace*>;
  Data data;
  bool is_json = false;  // a text that tojson leaves as it is

  Value() = default;
  template <class T>
  requires(!std::is_same_v<std::decay_t<T>, Value>) explicit Value(T&& value) : data(std::forward<T>(value)) {}

  template <class T>
  const T* get() const {
    return std::get_if<T>(&data);
  }
  bool is_undefined() const { return get<Undefined>(); }
  bool is_none() const { return get<None>(); }
  const std::string* text() const { return get<Text>() ? get<Text>()->get() : nullptr; }
  const Sequence* sequence() const {
    return get<std::shared_ptr<const Sequence>>() ? get<std::shared_ptr<const Sequence>>()->get() : nullptr;
  }
  const Dict* dict() const { return get<std::shared_ptr<const Dict>>() ? get<std::shared_ptr<const Dict>>()->get() : nullptr; }
  const Callable* callable() const {
    return get<std::shared_ptr<const Callable>>() ? get<std::shared_ptr<const Callable>>()->get() : nullptr;
  }
  const Loop* loop() const { return get<std::shared_ptr<const Loop>>() ? get<std::shared_ptr<const Loop>>()->get() : nullptr; }
  Namespace* space() const { return get<Namespace*>() ? *get<Namespace*>() : nullptr; }
  bool is_number() const { return get<bool>() || get<Integer>() || get<double>(); }
  int depth() const;
};

using Values = std::vector<Value>;
using Pairs = std::vector<std::pair<Value, Value>>;

struct Sequence {
  bool tuple;
  Values items;
  int depth;
};
struct Dict {  // in order of insertion, as Python's; looked up by walking, since real ones are short. Keys are flat
  Pairs items;
  int depth;
  const Value* find(Bounds& bounds, const Value& key) const;
  const Value* find(std::string_view key) const;
};
struct Namespace {  // the only thing that changes; owned by the rendering, so that cycles through it free themselves
  std::vector<std::pair<std::string, Value>> items;
};
struct Loop {
  std::shared_ptr<const Sequence> items;
  size_t index = 0;
};

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
  // The argument at `position` or called `name`; nullptr when it was not given.
  const Value* find(size_t position, std::string_view name) const;
  // Error when there are more than `most` positional ones, or a name that is not in `names`.
  void check(std::string_view who, size_t most, std::initializer_list<std::string_view> names = {}) const;
};
struct Callable {
  std::string name;
  std::function<Value(const Arguments&)> call;
  int depth = 1;  // of what it is bound to
};

Value make_text(Bounds& bounds, std::string text);
Value make_sequence(Bounds& bounds, Values items, bool tuple = false);
Value make_dict(Bounds& bounds, Pairs items);                    // keys differ already
void put(Bounds& bounds, Pairs& items, Value key, Value value);  // as dict[key] = value; Error when the key cannot be one
Value make_undefined(std::string reason);

[[noreturn]] void refuse(const Undefined& undefined);  // Error: its reason
std::string_view type_name(const Value& value);        // as Python has it: "str", "NoneType"
bool is_true(const Value& value);
bool equal(Bounds& bounds, const Value& a, const Value& b);
bool less(Bounds& bounds, const Value& a, const Value& b);  // Error when Python has no order for them
bool contains(Bounds& bounds, const Value& container, const Value& item);
Values items_of(Bounds& bounds, const Value& value);            // what a loop over it sees; Error when it cannot be iterated
Integer length_of(const Value& value);                          // characters of a text
Integer integer_of(const Value& value, std::string_view what);  // Error unless a whole number, naming `what`
int64_t count_of(const Value& value, std::string_view what);    // the same, held within +-2^62
double real_of(const Value& value);                             // a number's value
std::string to_string(Integer value);

}  // namespace hadal::jinja
