#include "infer/recipe.h"

#include <fnmatch.h>

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "core/packed.h"

namespace hadal {

DType parse_weight_type(const std::string& name) {
  std::string upper = name;
  std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return std::toupper(c); });
  for (const DType t : {DType::w8, DType::w4, DType::w3, DType::w2, DType::f32, DType::f16, DType::bf16})
    if (upper == name_of(t)) return t;
  throw Error("no type of weights is called \"{}\": expected one of w8 w4 w3 w2 f32 f16 bf16", name);
}

bool can_be_packed(const ModelConfig& c, const std::string& name) {
  if (!name.ends_with("kv_b_proj.weight")) return true;
  return c.nope_dim % panel_rows == 0 && c.v_dim % panel_rows == 0 && c.kv_rank % panel_rows == 0;
}

std::optional<DType> Recipe::type_of(const ModelConfig& c, const std::string& name, Role role) const {
  if (!weights || (role != Role::matrix && role != Role::embedding)) return std::nullopt;
  DType type = *weights;
  const bool few_bits = type == DType::w4 || type == DType::w3 || type == DType::w2;
  const auto has = [&](const char* part) { return name.find(part) != name.npos; };
  if (few_bits) {
    const bool routed = has(".mlp.experts.");
    if (!routed) type = DType::w4;  // w3 and w2 are for the many that are rarely used
    if (role == Role::embedding || name.starts_with("lm_head.") || has(".kv_b_proj.") || has(".kv_a_proj_with_mqa.") || has(".indexer."))
      type = DType::w8;
    // Few keys and values shared by many queries: they weigh little and err much.
    if (c.attention == AttentionKind::gqa && 2 * c.kv_heads <= c.heads && (has(".k_proj.") || has(".v_proj."))) type = DType::w8;
  }
  for (const auto& [pattern, kept] : keep)
    if (::fnmatch(pattern.c_str(), name.c_str(), 0) == 0) {
      type = kept;
      break;
    }
  if (is_packed(type) && !can_be_packed(c, name)) return std::nullopt;
  return type;
}

}  // namespace hadal
