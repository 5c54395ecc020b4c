// A request's JSON body, read field by field: what is wrong is told with its place. null counts as absent, as the interfaces have it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace hadal {

class Field {
 public:
  static Field of_body(const std::string& body);  // ApiError: it is not a JSON object

  explicit operator bool() const { return node_ != nullptr; }  // it is there
  Field operator[](const char* key) const;                     // absent where this is no object, or has none
  bool is_text() const;
  bool is_list() const;
  bool is_object() const;
  bool is_token() const;                                       // an integer that a token id could be
  size_t size() const;                                         // of a list; 0 for whatever else
  Field first() const;                                         // of a list with items
  std::vector<Field> items() const;                            // of a list
  std::vector<std::pair<std::string, Field>> entries() const;  // of an object
  std::string json() const;
  const std::string& path() const { return path_; }

  // ApiError names the place, what is expected there, and what was found.
  [[noreturn]] void fail(const std::string& expected) const;
  std::string text() const;
  double number(double least, double most) const;
  int64_t integer(int64_t least, int64_t most) const;
  bool flag() const;
  std::vector<int32_t> tokens() const;  // of a list of ids

  // What is absent leaves `value` as it is.
  void read(std::string& value) const {
    if (*this) value = text();
  }
  void read(bool& value) const {
    if (*this) value = flag();
  }
  template <class T>
  void read(T& value, double least, double most) const {
    if (!*this) return;
    if constexpr (std::is_integral_v<T>)
      value = T(integer(int64_t(least), int64_t(most)));
    else
      value = T(number(least, most));
  }

 private:
  Field(std::shared_ptr<const void> root, const void* node, std::string path);
  std::shared_ptr<const void> root_;
  const void* node_;
  std::string path_;  // empty: the body itself
};

}  // namespace hadal
