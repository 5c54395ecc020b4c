// One torch.save file (.bin, .pt): a zip archive of a pickle and of the tensors' bytes.
// Source: torch/serialization.py, torch/_utils.py.
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "model/checkpoint.h"

namespace hadal {

// The tensors of the state dict (at the top, or under "state_dict" or "model"), pointing into `bytes`; strides are kept.
// No code of the file is run. `where` names the file in errors.
std::map<std::string, StoredTensor> parse_torch_bin(std::span<const std::byte> bytes, const std::string& where);

}  // namespace hadal
