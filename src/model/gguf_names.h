// GGUF's tensors as the published checkpoints have them: names, one matrix per expert, one kv_b_proj.
#pragma once
#include <map>
#include <string>
#include <string_view>

#include "model/checkpoint.h"

namespace hadal {

// The published name of a tensor that is stored alike in both; the same name when there is none.
std::string published_name(std::string_view gguf_name);

// All of `stored` under published names. What had to be joined is in Checkpoint::bytes; the rest points where `stored` points.
Checkpoint published_checkpoint(const std::map<std::string, StoredTensor>& stored, const std::string& where);

}  // namespace hadal
