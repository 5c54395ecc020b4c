#include "train/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "core/files.h"

namespace hadal::train {
namespace {

constexpr double width = 900, left = 60, right = 20;

struct Point {
  double step, value;
};

struct Log {
  std::vector<Point> loss, evaluation, rate;
};

Log read_log(const std::filesystem::path& file) {
  Log log;
  std::istringstream in(read_text(file));
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    std::vector<std::string> cells;
    std::istringstream parts(line);
    for (std::string cell; std::getline(parts, cell, ',');) cells.push_back(cell);
    if (cells.size() < 4) continue;
    const auto add = [&](std::vector<Point>& curve, const std::string& cell) {
      const double value = cell.empty() ? NAN : std::strtod(cell.c_str(), nullptr);
      if (std::isfinite(value)) curve.push_back({std::strtod(cells[0].c_str(), nullptr), value});
    };
    add(log.loss, cells[1]);
    add(log.evaluation, cells[2]);
    add(log.rate, cells[3]);
  }
  return log;
}

std::vector<Point> smoothed(const std::vector<Point>& curve) {  // the mean of as many neighbours as a fiftieth of the run
  const int64_t reach = int64_t(curve.size()) / 100;
  std::vector<Point> result;
  for (int64_t i = 0; i < int64_t(curve.size()); ++i) {
    const int64_t first = std::max<int64_t>(0, i - reach), end = std::min(int64_t(curve.size()), i + reach + 1);
    double sum = 0;
    for (int64_t j = first; j < end; ++j) sum += curve[size_t(j)].value;
    result.push_back({curve[size_t(i)].step, sum / double(end - first)});
  }
  return result;
}

struct Panel {
  double top, height, most_step, least, most;
  double x(double step) const { return left + step / most_step * (width - left - right); }
  double y(double value) const { return top + height * (1 - (value - least) / std::max(most - least, 1e-12)); }

  std::string line(const std::vector<Point>& curve, const char* style) const {
    std::string points;
    for (const Point& p : curve) points += fmt::format("{:.1f},{:.1f} ", x(p.step), y(std::clamp(p.value, least, most)));
    return fmt::format("<polyline points='{}' fill='none' {}/>\n", points, style);
  }
  std::string frame(const char* title) const {
    std::string out = fmt::format("<text x='{}' y='{}' class='t'>{}</text>\n", left, top - 8, title);
    for (int i = 0; i <= 4; ++i) {
      const double value = least + (most - least) * i / 4;
      out += fmt::format("<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='#ddd'/><text x='{}' y='{:.1f}' class='n'>{:.3g}</text>\n",
                         left, width - right, y(value), y(value), left - 6, y(value) + 4, value);
    }
    return out;
  }
};

}  // namespace

void draw_curves(const std::filesystem::path& log_file, const std::filesystem::path& picture) {
  const Log log = read_log(log_file);
  if (log.loss.size() < 2) return;
  const double most_step = log.loss.back().step;
  std::vector<double> shown;  // the first steps are far above all others
  for (size_t i = log.loss.size() / 50; i < log.loss.size(); ++i) shown.push_back(log.loss[i].value);
  for (const Point& p : log.evaluation) shown.push_back(p.value);
  const auto [least, most] = std::ranges::minmax(shown);
  const Panel losses{30, 300, most_step, std::max(0., least - 0.05 * (most - least)), most};
  const Panel rates{370, 80, most_step, 0, std::ranges::max(log.rate, {}, &Point::value).value};
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} 490' font-family='sans-serif'>\n"
      "<style>.t{{font-size:14px}} .n{{font-size:11px;text-anchor:end;fill:#555}} "
      ".s{{font-size:11px;text-anchor:middle;fill:#555}}</style>\n"
      "<rect width='100%' height='100%' fill='white'/>\n",
      width);
  svg += losses.frame("loss, nats a token (grey: each step; blue: smoothed; orange: evaluation)");
  svg += losses.line(log.loss, "stroke='#bbb' stroke-width='0.7'") + losses.line(smoothed(log.loss), "stroke='#1f77b4' stroke-width='2'") +
         losses.line(log.evaluation, "stroke='#ff7f0e' stroke-width='2'");
  svg += rates.frame("learning rate") + rates.line(log.rate, "stroke='#2ca02c' stroke-width='2'");
  for (int i = 0; i <= 4; ++i)
    svg += fmt::format("<text x='{:.1f}' y='472' class='s'>{:.0f}</text>\n", rates.x(most_step * i / 4), most_step * i / 4);
  svg += "<text x='450' y='487' class='s'>step</text>\n</svg>\n";
  write_atomically(picture, [&](std::ostream& out) { out << svg; });
}

}  // namespace hadal::train
