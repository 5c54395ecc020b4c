// Every command of the program hadal-train.
#pragma once

namespace CLI {
class App;
}

namespace hadal {

void add_train(CLI::App& app);
void add_distill(CLI::App& app);
void add_overlap(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_upcycle(CLI::App& app);

}  // namespace hadal
