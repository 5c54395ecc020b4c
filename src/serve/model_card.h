// What a program or a page may want to know of the model that is served, as JSON.
#pragma once
#include <cstdint>
#include <string>

namespace hadal {

struct Model;
struct EngineOptions;

struct ServedModel {
  std::string name, version;  // as clients call it; of the program
  bool chat = false;          // it has a chat template
};

std::string model_card_json(const ServedModel& served, const Model& model, const EngineOptions& engine, int64_t cache_rows);

}  // namespace hadal
