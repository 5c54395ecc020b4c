// Every command of the program: adds itself to `app` with its options, and runs when it is the one named.
#pragma once

namespace CLI {
class App;
}

namespace hadal {

void add_chat(CLI::App& app);
void add_generate(CLI::App& app);
void add_info(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_detokenize(CLI::App& app);
void add_logits(CLI::App& app);
void add_perplexity(CLI::App& app);
void add_answers(CLI::App& app);
void add_quantize(CLI::App& app);
void add_balance(CLI::App& app);
void add_bench(CLI::App& app);
void add_serve(CLI::App& app);
void add_keys(CLI::App& app);
void add_models(CLI::App& app);
void add_presets(CLI::App& app);
void add_pull(CLI::App& app);
void add_doctor(CLI::App& app);

}  // namespace hadal
