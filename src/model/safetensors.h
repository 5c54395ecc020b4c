// One .safetensors file: an 8-byte length, a JSON header, then the tensors' bytes.
// Source: the format description of the safetensors project.
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "model/checkpoint.h"

namespace hadal {

// The tensors point into `bytes`. `where` names the file in errors.
std::map<std::string, StoredTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& where);

}  // namespace hadal
