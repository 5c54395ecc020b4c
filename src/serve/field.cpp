#include "serve/field.h"

#include <nlohmann/json.hpp>

#include "serve/dialect.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;

const Json& json_of(const void* node) { return *static_cast<const Json*>(node); }

}  // namespace

Field::Field(std::shared_ptr<const void> root, const void* node, std::string path)
    : root_(std::move(root)), node_(node && !json_of(node).is_null() ? node : nullptr), path_(std::move(path)) {}

Field Field::of_body(const std::string& body) {
  static constexpr int deepest = 64;  // what is deeper would be written with as deep a recursion
  const auto shallow = [](int depth, Json::parse_event_t, Json&) {
    if (depth > deepest) throw ApiError(400, fmt::format("the body: nested deeper than {}", deepest));
    return true;
  };
  const auto json = std::make_shared<const Json>(Json::parse(body, shallow, false));
  if (json->is_discarded()) throw ApiError(400, "the body is not JSON");
  if (!json->is_object()) throw ApiError(400, fmt::format("the body: expected a JSON object, found {}", json->type_name()));
  return {json, json.get(), ""};
}

Field Field::operator[](const char* key) const {
  std::string path = path_.empty() ? key : path_ + '.' + key;
  if (!is_object()) return {root_, nullptr, std::move(path)};
  const auto at = json_of(node_).find(key);
  return {root_, at == json_of(node_).end() ? nullptr : &*at, std::move(path)};
}

bool Field::is_text() const { return node_ && json_of(node_).is_string(); }
bool Field::is_list() const { return node_ && json_of(node_).is_array(); }
bool Field::is_object() const { return node_ && json_of(node_).is_object(); }

bool Field::is_token() const {
  if (!node_ || !json_of(node_).is_number_integer()) return false;
  const double value = json_of(node_).get<double>();
  return value >= 0 && value <= INT32_MAX;
}

size_t Field::size() const { return is_list() ? json_of(node_).size() : 0; }

Field Field::first() const { return {root_, &json_of(node_).front(), path_ + "[0]"}; }

std::vector<Field> Field::items() const {
  if (!is_list()) fail("a list");
  std::vector<Field> items;
  for (const Json& item : json_of(node_)) items.push_back({root_, &item, fmt::format("{}[{}]", path_, items.size())});
  return items;
}

std::vector<std::pair<std::string, Field>> Field::entries() const {
  if (!is_object()) fail("an object");
  std::vector<std::pair<std::string, Field>> entries;
  for (const auto& entry : json_of(node_).items())
    entries.emplace_back(entry.key(), Field(root_, &entry.value(), path_.empty() ? entry.key() : path_ + '.' + entry.key()));
  return entries;
}

std::string Field::json() const { return node_ ? to_text(json_of(node_)) : "null"; }

void Field::fail(const std::string& expected) const {
  std::string found = node_ ? json() : "nothing";
  if (found.size() > 80) found = found.substr(0, 77) + "...";
  throw ApiError(400, fmt::format("{}: expected {}, found {}", path_, expected, found), path_);
}

std::string Field::text() const {
  if (!is_text()) fail("a string");
  return json_of(node_).get<std::string>();
}

double Field::number(double least, double most) const {
  if (node_ && json_of(node_).is_number()) {
    const double value = json_of(node_).get<double>();
    if (value >= least && value <= most) return value;
  }
  fail(fmt::format("a number from {} to {}", least, most));
}

int64_t Field::integer(int64_t least, int64_t most) const {
  if (node_ && json_of(node_).is_number_integer()) {
    const double value = json_of(node_).get<double>();
    if (value >= double(least) && value <= double(most)) return json_of(node_).get<int64_t>();
  }
  fail(fmt::format("an integer from {} to {}", least, most));
}

bool Field::flag() const {
  if (!node_ || !json_of(node_).is_boolean()) fail("true or false");
  return json_of(node_).get<bool>();
}

std::vector<int32_t> Field::tokens() const {
  if (!is_list()) fail("a list of token ids");
  std::vector<int32_t> tokens;
  for (const Json& item : json_of(node_)) {
    if (!Field(root_, &item, "").is_token()) Field(root_, &item, fmt::format("{}[{}]", path_, tokens.size())).fail("a token id");
    tokens.push_back(item.get<int32_t>());
  }
  return tokens;
}

}  // namespace hadal
