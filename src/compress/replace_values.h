// A checkpoint's folder again, with the values of a few tensors replaced.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/checkpoint.h"

namespace hadal {

// Copies the files of `source`, a folder in Hugging Face layout, to the new folder `to`, which appears when it is whole. values: of each
// named tensor all values, written in the type that it has (f32 or bf16). Packing reports (quantization.json) stay behind: they hold
// checksums of the old files. Error: `to` exists, a tensor that is missing, of another size or not in safetensors, a full disk.
void copy_with_values(const std::filesystem::path& source, const Checkpoint& checkpoint, const std::filesystem::path& to,
                      const std::map<std::string, std::vector<float>>& values);

}  // namespace hadal
