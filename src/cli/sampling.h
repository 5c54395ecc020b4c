// Options that choose how tokens are drawn; one group for `generate` and `chat`.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "infer/sampler.h"

namespace CLI {
class App;
}

namespace hadal {

struct SamplingOptions {
  std::optional<float> temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias;  // ID=VALUE
  std::vector<std::string> stop;
};
void add_sampling(CLI::App* command, SamplingOptions& options);

// What was asked for; what was not is as the model's generation_config.json recommends, else the likeliest token each time: transformers
// does the same. Without --seed a random one.
Sampling sampling_for(const SamplingOptions& options, const std::filesystem::path& model);
uint64_t random_seed();

}  // namespace hadal
