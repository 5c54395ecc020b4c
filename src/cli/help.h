// How help texts look: names on the left, explanations wrapped on the right, defaults in words.
#pragma once
#include <memory>

namespace CLI {
class FormatterBase;
}

namespace hadal {

std::shared_ptr<CLI::FormatterBase> help_formatter();

}  // namespace hadal
