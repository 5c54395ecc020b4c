// The state dict inside a torch.save pickle, read by an unpickler that can run no code: it knows the opcodes torch.save emits and
// a closed list of names, and builds descriptions of tensors, never objects.
// Source: Python's pickletools.py (opcodes), torch/serialization.py (persistent ids), torch/_utils.py (_rebuild_*).
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct PickledTensor {                  // text points into the pickle
  std::string_view type;                // of the values: "BFloat16Storage", or a dtype as torch names it ("float8_e4m3fn")
  std::string_view storage;             // the archive's member data/<storage>
  int64_t offset = 0;                   // of the first value in the storage, in values
  std::vector<int64_t> shape, strides;  // as many of each
};

// Error for anything else: what stands where, and for a forbidden name, that loading it would run code.
std::map<std::string, PickledTensor> unpickle_state_dict(std::span<const std::byte> pickle, const std::string& where);

}  // namespace hadal
