// config.json and the other small files of a packed model's folder.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/source.h"

namespace hadal {

// A config.json from which parse_config makes the same configuration. `weights`: what quantization_config says, e.g. "w4"; empty: nothing.
// Error: a configuration that the published keys (and docs/formats.md's few of our own) cannot express.
std::string config_json(const ModelConfig& config, const std::string& weights, int64_t drafts = 0);
// A published config.json with its quantization_config (`weights` empty: without it) and the number of its draft layers replaced.
std::string packed_config_json(const std::string& published, const std::string& weights, int64_t drafts);

// Everything but weights and the index: configuration, tokenizer, chat template, defaults of sampling.
void write_text_side(const ModelSource& source, const std::filesystem::path& folder, const std::string& weights, int64_t drafts);

// The same of a model that was made here: the tokenizer's files from another folder.
void write_text_side(const std::filesystem::path& tokenizer, const ModelConfig& config, const std::filesystem::path& folder);

// model.safetensors.index.json
void write_index(const std::filesystem::path& folder, const std::map<std::string, std::string>& file_of_tensor, int64_t bytes);

// What was done so far and how well: quantization.json in the folder. Shards listed there are whole.
struct PartReport {
  int64_t values = 0, bytes = 0;
  double error = 0, norm = 0;  // sums of squares
};
struct ShardReport {
  std::string file;
  int64_t bytes = 0;
  uint64_t checksum = 0;
  std::map<std::string, PartReport> parts;
};
struct PackingReport {
  std::string source, recipe;  // what was packed, and how: another one must not be continued
  std::vector<ShardReport> shards;
  bool complete = false;
};
void write_report(const std::filesystem::path& folder, const PackingReport& report);
PackingReport read_report(const std::filesystem::path& folder);  // empty where there is none. Error: it is not one

}  // namespace hadal
