#include "model/json_schema.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;
using Names = std::initializer_list<std::string_view>;

constexpr int64_t longest = 100000;  // of minLength, maxItems and their like

bool has(const Json& schema, std::string_view key) { return schema.contains(key); }

bool is_of(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
  return type == value.type_name();
}

class Checker {
 public:
  void check(Json& schema, const std::string& place) {
    if (schema.is_boolean()) return;
    if (!schema.is_object()) fail(place, "expected a schema (an object, true or false)", schema);
    refuse(schema, place);
    check_types(schema, place);
    check_one_way(schema, place);
    check_sizes(schema, place);
    if (has(schema, "$ref")) check_reference(schema["$ref"], place);
    check_inner(schema, place);
    say_what_is_open(schema, place);
  }

 private:
  [[noreturn]] static void fail(const std::string& place, const std::string& expected, const Json& found) {
    std::string text = found.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    throw Error("{}: {}, found {}", place, expected, text);
  }

  static void refuse(const Json& schema, const std::string& place) {
    for (const char* key : {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains", "minContains",
                            "maxContains", "$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems"})
      if (has(schema, key)) throw Error("{}: the keyword \"{}\" is not supported", place, key);
    if (schema.value("uniqueItems", Json(false)) != Json(false)) throw Error("{}: the keyword \"uniqueItems\" is not supported", place);
    for (const char* key : {"format", "pattern", "$ref"})
      if (has(schema, key) && !schema[key].is_string()) fail(place + "." + key, "expected a string", schema[key]);
    for (const char* key : {"properties", "patternProperties", "$defs", "definitions"})
      if (has(schema, key) && !schema[key].is_object()) fail(place + "." + key, "expected an object", schema[key]);
    for (const char* key : {"anyOf", "oneOf", "allOf", "prefixItems", "enum"})
      if (has(schema, key) && (!schema[key].is_array() || schema[key].empty()))
        fail(place + "." + key, "expected a list of one or more", schema[key]);
    if (has(schema, "allOf") && schema["allOf"].size() > 1) throw Error("{}: \"allOf\" of more than one schema is not supported", place);
  }

  static void check_types(const Json& schema, const std::string& place) {
    if (!has(schema, "type")) return;
    const Json& type = schema["type"];
    const Json list = type.is_array() ? type : Json::array({type});
    if (list.empty()) fail(place + ".type", "expected a type", type);
    for (const Json& one : list)
      if (!one.is_string() || !is_one_of(one.get<std::string>(), {"object", "array", "string", "number", "integer", "boolean", "null"}))
        fail(place + ".type", "expected object, array, string, number, integer, boolean or null", type);
    const auto fits = [&](const Json& value) {
      return std::any_of(list.begin(), list.end(), [&](const Json& one) { return is_of(value, one.get<std::string>()); });
    };
    if (has(schema, "const") && !fits(schema["const"])) fail(place + ".const", "expected a value of the type beside it", schema["const"]);
    if (!has(schema, "enum")) return;
    for (const Json& value : schema["enum"])
      if (!fits(value)) fail(place + ".enum", "expected values of the type beside it", value);
  }

  static bool is_one_of(std::string_view name, Names names) { return std::find(names.begin(), names.end(), name) != names.end(); }

  // A schema says what its value is in one way: what stands beside that would not be kept.
  static void check_one_way(const Json& schema, const std::string& place) {
    for (const std::string_view way : {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"}) {
      if (!has(schema, way)) continue;
      for (const auto& [key, value] : schema.items()) {
        const bool typed = key == "type" && (way == "const" || way == "enum");
        if (key == way || typed ||
            !is_one_of(key, {"$ref",
                             "const",
                             "enum",
                             "anyOf",
                             "oneOf",
                             "allOf",
                             "type",
                             "properties",
                             "required",
                             "additionalProperties",
                             "patternProperties",
                             "propertyNames",
                             "minProperties",
                             "maxProperties",
                             "items",
                             "prefixItems",
                             "minItems",
                             "maxItems",
                             "pattern",
                             "minLength",
                             "maxLength",
                             "minimum",
                             "maximum",
                             "exclusiveMinimum",
                             "exclusiveMaximum",
                             "multipleOf"}))
          continue;
        throw Error("{}: \"{}\" beside \"{}\" is not supported", place, key, way);
      }
    }
  }

  static void check_sizes(const Json& schema, const std::string& place) {
    for (const char* key : {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}) {
      if (!has(schema, key)) continue;
      const Json& size = schema[key];
      if (!size.is_number_integer() || size.get<double>() < 0 || size.get<double>() > double(longest))
        fail(place + "." + key, fmt::format("expected an integer from 0 to {}", longest), size);
    }
    for (const char* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
      if (has(schema, key) && !schema[key].is_number()) fail(place + "." + key, "expected a number", schema[key]);
  }

  static void check_reference(const Json& reference, const std::string& place) {
    const std::string text = reference.get<std::string>();
    if (text != "#" && !text.starts_with("#/")) fail(place + ".$ref", "expected a reference into this schema (#/...)", reference);
  }

  void check_inner(Json& schema, const std::string& place) {
    for (const char* key : {"properties", "patternProperties", "$defs", "definitions"})
      if (has(schema, key))
        for (auto& [name, inner] : schema[key].items()) check(inner, fmt::format("{}.{}.{}", place, key, name));
    for (const char* key : {"anyOf", "oneOf", "allOf", "prefixItems"})
      if (has(schema, key))
        for (size_t i = 0; i < schema[key].size(); ++i) check(schema[key][i], fmt::format("{}.{}[{}]", place, key, i));
    for (const char* key : {"additionalProperties", "propertyNames", "items"})
      if (has(schema, key)) check(schema[key], place + "." + key);
  }

  static bool may_be(const Json& schema, const char* type) {
    if (!has(schema, "type")) return false;
    const Json& types = schema["type"];
    return types == Json(type) || (types.is_array() && std::find(types.begin(), types.end(), Json(type)) != types.end());
  }

  static void say_what_is_open(Json& schema, const std::string& place) {
    const auto none_of = [&](Names keys) {
      return std::none_of(keys.begin(), keys.end(), [&](std::string_view key) { return has(schema, key); });
    };
    if (!none_of({"$ref", "const", "enum", "anyOf", "oneOf", "allOf"})) return;
    if (may_be(schema, "object") && none_of({"properties", "patternProperties", "additionalProperties", "propertyNames"}))
      schema["additionalProperties"] = true;
    if (may_be(schema, "array") && none_of({"items", "prefixItems"})) schema["items"] = true;
    if (!has(schema, "required")) return;
    const Json& required = schema["required"];
    if (!required.is_array()) fail(place + ".required", "expected a list of names", required);
    for (const Json& name : required)
      if (!name.is_string() || !has(schema, "properties") || !has(schema["properties"], name.get<std::string>()))
        fail(place + ".required", "expected names that are in properties", name);
  }
};

}  // namespace

std::string checked_json_schema(const std::string& text) {
  static constexpr int deepest = 64;  // what reads it recurses
  bool deep = false;
  const auto shallow = [&](int depth, Json::parse_event_t, Json&) {
    deep |= depth > deepest;
    return !deep;
  };
  Json schema = Json::parse(text, shallow, false);
  if (deep) throw Error("nested deeper than {}", deepest);
  if (schema.is_discarded()) throw Error("it is not JSON");
  Checker().check(schema, "$");
  return schema.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hadal
