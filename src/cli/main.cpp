// hadal: one program, one command per task. See commands.h.
#include "cli/commands.h"
#include "cli/program.h"

namespace {

constexpr const char* closing = R"(Examples:
  hadal chat                                         talk to the default model
  hadal generate smollm2 -p "Name three rivers."     one answer
  hadal serve path/to/model                          the OpenAI interface at http://127.0.0.1:8080/v1
  hadal info path/to/model                           what a checkpoint is
  hadal train run.toml                               makes a model; so do distill, tokenizer, overlap and upcycle (the program hadal-train)

A MODEL is a folder in Hugging Face layout, a .gguf file, or a name that `hadal models` lists.
`hadal COMMAND --help` tells everything about a command.
Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace hadal;
  return run_program(
      {.name = "hadal",
       .what = "hadal loads DeepSeek models and their relatives, and runs them on ordinary processors.",
       .closing = closing,
       .commands = {add_chat, add_generate, add_serve, add_keys, add_info, add_tokenize, add_detokenize, add_logits, add_perplexity,
                    add_answers, add_quantize, add_balance, add_bench, add_models, add_presets, add_pull, add_doctor},
       .other = "hadal-train",
       .other_commands = {"train", "distill", "tokenizer", "overlap", "upcycle"}},
      argc, argv);
}
