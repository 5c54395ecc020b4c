#include "eval/load_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

namespace hadal {
namespace {

constexpr int cell = 14, left = 70, top = 44, right = 210, line = 18;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

// ratio: load / mean
std::string color(double ratio) {
  const double strength = std::clamp(std::abs(ratio - 1), 0., 1.);
  const int faded = int(std::lround(255 * (1 - strength)));
  return ratio >= 1 ? fmt::format("#ff{0:02x}{0:02x}", faded) : fmt::format("#{0:02x}{0:02x}ff", faded);
}

}  // namespace

std::string load_picture(const std::vector<LayerLoad>& layers, const std::string& title) {
  const int experts = layers.empty() ? 0 : int(layers[0].load.size());
  const int width = std::max(left + experts * cell + right, 520), height = top + int(layers.size()) * line + 12;
  std::string svg;
  const auto out = std::back_inserter(svg);
  fmt::format_to(
      out,
      R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}" font-family="sans-serif" font-size="11">)",
      width, height);
  fmt::format_to(out, "\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"18\" font-size=\"13\">{}</text>\n",
                 escaped(title));
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerLoad& l = layers[i];
    const int y = top + int(i) * line;
    const double mean = std::max(1., std::accumulate(l.load.begin(), l.load.end(), 0.) / double(l.load.size()));
    fmt::format_to(out, "<text x=\"8\" y=\"{}\">layer {}</text>\n", y + 12, l.layer);
    for (size_t e = 0; e < l.load.size(); ++e)
      fmt::format_to(out,
                     "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" stroke=\"#ddd\"><title>expert {}: {:.3f} of the "
                     "mean</title></rect>\n",
                     left + int(e) * cell, y, cell, cell, color(double(l.load[e]) / mean), e, double(l.load[e]) / mean);
    fmt::format_to(out, "<text x=\"{}\" y=\"{}\">spread {:.2f} %, floor {:.2f} %</text>\n", left + experts * cell + 10, y + 12,
                   100 * l.figures.spread, 100 * l.figures.floor);
  }
  return svg + "</svg>\n";
}

}  // namespace hadal
