// The module hadal._train, where torch is: what hadal.torch is written over. Python's lock is given up wherever something is computed.
#include "python/tensor_caster.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core/error.h"
#include "core/files.h"
#include "model/write_config.h"
#include "python/numbers.h"
#include "python/trunk.h"
#include "train/curves.h"
#include "train/trainer.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hadal {
namespace {

using Unlocked = nb::gil_scoped_release;
using train::Memory;

// Both modules raise the same hadal.Error; of torch's errors the message, without the addresses of its C++ frames.
void translate(const std::exception_ptr& failure, void* error_class) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    PyErr_SetString(static_cast<PyObject*>(error_class), error.what());
  } catch (const c10::Error& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
  }
}

// (logits, hidden states, (layer, logits, scores, experts, weights) of each MoE layer)
nb::tuple forward(const Trunk& trunk, const std::vector<Tensor>& parameters, const Tensor& tokens, int64_t window, int64_t sinks,
                  int64_t top_blocks, bool recompute, Memory* memory, bool hidden, bool routings) {
  TrunkResult result;
  {
    const Unlocked unlocked;
    result = trunk.forward(parameters, {.tokens = tokens,
                                        .window = window,
                                        .sinks = sinks,
                                        .top_blocks = top_blocks,
                                        .recompute = recompute,
                                        .hidden = hidden,
                                        .routings = routings,
                                        .memory = memory});
  }
  nb::list layers;
  for (const LayerRouting& r : result.routings)
    layers.append(nb::make_tuple(r.layer, r.routing.logits, r.routing.scores, r.routing.expert, r.routing.weight));
  return nb::make_tuple(result.logits, result.hidden, layers);
}

void save(const Trunk& trunk, const std::vector<Tensor>& parameters, const std::string& folder, bool bf16, const std::string& config,
          const std::optional<std::string>& source) {
  const Unlocked unlocked;
  const std::optional<ModelSource> from = source ? std::optional<ModelSource>(std::in_place, *source) : std::nullopt;
  trunk.save(parameters, bf16 ? DType::bf16 : DType::f32, folder, config, from ? &*from : nullptr);
}

// A run file's run as one of `size` programs. sum: of a list of tensors over all of them, in place. exchange: (rows, how many go to each
// rank, how many come from each) -> rows; none: every program has all experts. stop: whether to save and return. report: (step, steps,
// loss, evaluation, tokens/s, what else happened) behind every step of the first. Returns (steps, loss, evaluation, seconds, the model's
// folder or
// "" where it was stopped).
nb::tuple run(const std::string& file, const std::string& output, const std::string& from, bool resume, int rank, int size,
              const nb::callable& sum, const std::optional<nb::callable>& exchange, const nb::callable& stop, const nb::callable& report) {
  const train::TrainConfig config = train::read_train_config(file, {output, from});
  // Borrowed: all outlive the run, which ends without Python's lock.
  train::Ranks ranks{.rank = rank, .size = size, .sum = {}};
  ranks.sum = [sum = nb::handle(sum)](std::vector<Tensor>& tensors) {
    const nb::gil_scoped_acquire locked;
    sum(tensors);
  };
  if (exchange)
    ranks.exchange = [exchange = nb::handle(*exchange)](const Tensor& rows, const std::vector<int64_t>& sent,
                                                        const std::vector<int64_t>& received) {
      const nb::gil_scoped_acquire locked;
      return nb::cast<Tensor>(exchange(rows, sent, received));
    };
  train::DistillHooks hooks;
  hooks.stop = [stop = nb::handle(stop)] {
    const nb::gil_scoped_acquire locked;
    return nb::cast<bool>(stop());
  };
  hooks.report = [report = nb::handle(report)](const train::StepReport& r) {
    const nb::gil_scoped_acquire locked;
    report(r.step, r.steps, r.loss, r.evaluation, r.tokens_per_second, r.note);
  };
  train::RunResult result;
  {
    const Unlocked unlocked;
    result = config.distill.teacher.empty() ? train::train(config, resume, hooks, ranks) : train::distill(config, resume, hooks, ranks);
    if (rank == 0) train::draw_curves(config.output / "log.csv", config.output / "curves.svg");
  }
  return nb::make_tuple(result.steps, result.loss, result.evaluation, result.seconds, result.model.string());
}

nb::list parameters_of(const Trunk& trunk) {
  nb::list all;
  for (const Trunk::Parameter& p : trunk.parameters()) all.append(nb::make_tuple(p.name, p.shape, p.learnt));
  return all;
}

}  // namespace
}  // namespace hadal

NB_MODULE(_train, m) {
  using namespace hadal;
  nb::set_leak_warnings(false);  // a model that a program still holds at its end is no leak
  nb::register_exception_translator(translate, nb::module_::import_("hadal._hadal").attr("Error").ptr());

  nb::class_<Memory>(m, "Memory")
      .def(
          "__init__", [](Memory* memory, int64_t rows, int64_t sinks) { new (memory) Memory{.rows = rows, .sinks = sinks}; }, "rows"_a,
          "sinks"_a)
      .def_ro("rows", &Memory::rows)
      .def_ro("sinks", &Memory::sinks)
      .def_ro("position", &Memory::position)
      .def_prop_ro("kept", [](const Memory& memory) { return memory.positions.size(); });

  nb::class_<Trunk>(m, "Trunk")
      .def(
          "__init__",
          [](Trunk* trunk, const std::string& json, const std::string& generation, const std::string& where) {
            new (trunk) Trunk(parse_config(json, generation, where));
          },
          "config"_a, "generation"_a, "where"_a)
      .def("parameters", &parameters_of)
      .def("numbers", [](const Trunk& trunk) { return numbers_of(trunk.config(), trunk.config().end_tokens); })
      .def(
          "random",
          [](const Trunk& trunk, uint64_t seed) {
            const Unlocked unlocked;
            return trunk.random(seed);
          },
          "seed"_a)
      .def(
          "load",
          [](const Trunk& trunk, const std::string& path) {
            const Unlocked unlocked;
            return trunk.load(ModelSource(path));
          },
          "path"_a)
      .def("forward", &forward, "parameters"_a, "tokens"_a, "window"_a, "sinks"_a, "top_blocks"_a, "recompute"_a, "memory"_a.none(),
           "hidden"_a, "routings"_a)
      .def("save", &save, "parameters"_a, "folder"_a, "bf16"_a, "config"_a, "source"_a.none());

  m.def("run", &run, "file"_a, "output"_a, "from"_a, "resume"_a, "rank"_a, "size"_a, "sum"_a, "exchange"_a.none(), "stop"_a, "report"_a);
  // config.json of a model, and its generation_config.json or an empty text.
  m.def(
      "config_texts",
      [](const std::string& path) {
        const ModelSource source(path);
        if (source.gguf()) return nb::make_tuple(config_json(source.config(), "", 0), "");
        const auto text = [&](const char* name) {
          const std::filesystem::path file = source.path() / name;
          return std::filesystem::exists(file) ? read_text(file) : std::string();
        };
        return nb::make_tuple(text("config.json"), text("generation_config.json"));
      },
      "path"_a);
  m.attr("torch_version") = TORCH_VERSION;
}
