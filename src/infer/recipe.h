// Which type each weight of a model gets when it is packed: by `--weights` while loading, by `hadal quantize` for good.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "model/params.h"

namespace hadal {

struct Recipe {
  std::optional<DType> weights;                     // w8, w4, w3, w2, f32, f16 or bf16; none: as stored
  std::vector<std::pair<std::string, DType>> keep;  // shell patterns over published names; the first that matches decides

  // What becomes of one parameter; none: it stays as it is stored. Vectors and routers are f32 in any case and are not asked for.
  // Which parts of a packed model keep more bits, and why: docs/formats.md.
  std::optional<DType> type_of(const ModelConfig& config, const std::string& name, Role role) const;
};

// w8 w4 w3 w2 f32 f16 bf16; Error names them.
DType parse_weight_type(const std::string& name);

// Multi-head latent attention uses a projection's rows head by head, which packed panels allow only in steps of 16.
bool can_be_packed(const ModelConfig& config, const std::string& name);

}  // namespace hadal
