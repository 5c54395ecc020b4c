#include "train/state.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/files.h"
#include "model/safetensors_writer.h"
#include "train/torch.h"

namespace hadal::train {
namespace {
namespace fs = std::filesystem;

constexpr const char* file_name = "state.safetensors";

Tensor numbers(const RunState& state) {
  std::vector<double> all{double(state.step), double(state.skipped), double(state.memories.size())};
  all.insert(all.end(), state.losses.begin(), state.losses.end());
  return torch::tensor(all, torch::kDouble);
}

// As int64 and double have no name among the types of weights, all is written as float32 or, bit by bit, as pairs of it.
Tensor bits(const Tensor& t) { return t.scalar_type() == torch::kFloat ? t.contiguous() : t.contiguous().view(torch::kFloat); }

std::string memory_name(size_t memory, size_t layer, const char* part) { return fmt::format("memory.{}.{}.{}", memory, layer, part); }

void add_memory(std::vector<NamedTensor>& all, const Memory& memory, size_t number) {
  std::vector<int64_t> head{memory.rows, memory.sinks, memory.position, int64_t(memory.layers.size())};
  head.insert(head.end(), memory.positions.begin(), memory.positions.end());
  all.push_back({fmt::format("memory.{}", number), Role::bias, bits(torch::tensor(head, torch::kLong))});
  for (size_t layer = 0; layer < memory.layers.size(); ++layer) {
    const Memory::Layer& kept = memory.layers[layer];
    const auto add = [&](const char* part, const Tensor& t) {
      if (t.defined()) all.push_back({memory_name(number, layer, part), Role::matrix, t.to(torch::kFloat).contiguous()});
    };
    add("keys", kept.keys);
    add("values", kept.values);
    add("index_keys", kept.index_keys);
  }
}

Tensor read(const Checkpoint& file, const std::string& name) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end()) throw Error("training state: expected a tensor {}, found none of that name", name);
  Tensor t = torch::empty(found->second.shape, torch::kFloat);
  to_f32(found->second, 0, t.numel(), t.data_ptr<float>());
  return t;
}

Memory read_memory(const Checkpoint& file, size_t number) {
  const Tensor head = read(file, fmt::format("memory.{}", number)).view(torch::kLong);
  const int64_t* at = head.data_ptr<int64_t>();
  Memory memory{at[0], at[1], at[2], {at + 4, at + head.numel()}, {}};
  memory.layers.resize(size_t(at[3]));
  for (size_t layer = 0; layer < memory.layers.size(); ++layer) {
    const auto part = [&](const char* name) {
      const std::string whole = memory_name(number, layer, name);
      return file.tensors.contains(whole) ? read(file, whole) : Tensor();
    };
    memory.layers[layer] = {part("keys"), part("values"), part("index_keys")};
  }
  return memory;
}

}  // namespace

void save_state(const fs::path& folder, const RunState& state, const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> all{{"run", Role::bias, bits(numbers(state))}};
  for (size_t i = 0; i < state.memories.size(); ++i) add_memory(all, state.memories[i], i);
  for (const NamedTensor& t : tensors) all.push_back({t.name, t.role, t.tensor.detach().contiguous()});
  std::vector<PlannedTensor> plan;
  plan.reserve(all.size());
  for (const NamedTensor& t : all) plan.push_back({t.name, DType::f32, t.tensor.sizes().vec()});
  fs::path part = folder;
  part += ".part";
  fs::remove_all(part);
  fs::create_directories(part);
  SafetensorsWriter writer(part / file_name, plan);
  for (const NamedTensor& t : all) writer.write({static_cast<const std::byte*>(t.tensor.data_ptr()), size_t(t.tensor.nbytes())});
  writer.finish();
  fs::remove_all(folder);
  fs::rename(part, folder);
}

RunState load_state(const fs::path& folder, const std::vector<NamedTensor>& tensors) {
  const torch::NoGradGuard no_grad;
  const Checkpoint file = open_checkpoint(folder / file_name);
  const Tensor run = read(file, "run").view(torch::kDouble);
  const double* at = run.data_ptr<double>();
  RunState state{int64_t(at[0]), int64_t(at[1]), {at + 3, at + run.numel()}, {}};
  for (size_t i = 0; i < size_t(at[2]); ++i) state.memories.push_back(read_memory(file, i));
  for (const NamedTensor& t : tensors) {
    const Tensor stored = read(file, t.name);
    if (stored.sizes() != t.tensor.sizes())
      throw Error("training state {}: tensor {}: expected {} values, found {}", folder.string(), t.name, t.tensor.numel(), stored.numel());
    t.tensor.copy_(stored);
  }
  return state;
}

fs::path state_folder(const fs::path& output, int64_t step) { return output / "state" / fmt::format("step-{:08}", step); }

std::vector<int64_t> saved_steps(const fs::path& output) {
  std::vector<int64_t> steps;
  if (!fs::is_directory(output / "state")) return steps;
  for (const auto& entry : fs::directory_iterator(output / "state")) {
    const std::string name = entry.path().filename();
    int64_t step = 0;
    if (!name.starts_with("step-")) continue;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) steps.push_back(step);
  }
  std::ranges::sort(steps);
  return steps;
}

}  // namespace hadal::train
