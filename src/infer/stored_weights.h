// The tensors of a checkpoint as the configuration names them: found, checked, and read as rows of floats whatever they are stored as.
#pragma once
#include <set>
#include <string>

#include "core/mat.h"
#include "infer/quantize.h"
#include "model/checkpoint.h"
#include "model/params.h"

namespace hadal {

class StoredWeights {
 public:
  StoredWeights(const ModelConfig& config, const Checkpoint& checkpoint) : config_(config), checkpoint_(checkpoint) {}

  bool is_packed(const std::string& name) const;  // three tensors: name, name_scale, name_sum (core/packed.h)
  // A packed matrix where it is mapped. Error: a part is missing, misshaped or of another type, scales or sums that no packer writes.
  // Experts on disk are not to be touched: `unread` leaves their scales and sums to whoever reads them (check_packed).
  Weight packed(const std::string& name, Shape shape, bool unread = false);

  const StoredTensor& find(const std::string& name, Shape shape);  // Error: missing or misshaped
  // Rows of a tensor found before; factors of FP8 applied. A vector is one row. The function must not outlive this object's checkpoint.
  ReadRow rows(const std::string& name, Shape shape);
  // The type without loss for a matrix that is not packed: f32, f16 or bf16.
  DType plain_type(const std::string& name, Shape shape);

  void check_extra() const;  // Error: a tensor that nothing asked for and that is known not to be needed

 private:
  const StoredTensor& part(const std::string& name, DType type, std::vector<int64_t> shape);
  bool may_be_ignored(std::string_view name) const;
  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  std::set<std::string> used_;
};

void convert_row(std::span<const float> row, DType to, std::byte* out);  // f32, f16 or bf16

// Error naming `name`: a scale that is not finite, or a sum that no row of integers has.
void check_packed(const Weight& w, const std::string& name);

}  // namespace hadal
