// hadal-train: the commands that make models. `hadal train` and its like start this program.
#include "cli/program.h"
#include "cli/train/commands.h"
#include "train/memory.h"

namespace {

constexpr const char* closing = R"(Examples:
  hadal tokenizer models/tokenizer.toml --vocab 4096 --output tokenizer     learns a vocabulary
  hadal train models/nano-v1.toml                                           makes a model
  hadal train models/nano-v1.toml --resume                                  goes on where a run was stopped or killed

A run is one TOML file; docs/training.md explains its keys.
Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace hadal;
  train::keep_freed_memory();
  return run_program({.name = "hadal",
                      .what = "hadal-train makes models of the DeepSeek family: the commands of `hadal` that need libtorch.",
                      .closing = closing,
                      .commands = {add_train, add_distill, add_tokenizer, add_overlap, add_upcycle}},
                     argc, argv);
}
