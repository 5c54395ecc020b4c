// Texts to ids and back for the comparison with other implementations (tests/python/test_tokenizers.py).
// usage: tokenize_lines FOLDER|FILE.json|FILE.gguf encode|decode|bench
//   encode  reads "BYTES\n" and that many bytes, again and again; writes a line of ids for each
//   decode  reads lines of ids; writes "BYTES\n" and the bytes for each
//   bench   reads a text; writes what loading took and how fast the text is encoded
#include <time.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <sstream>

#include "core/files.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

static hadal::Tokenizer open(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return hadal::Tokenizer::from_folder(path);
  if (path.extension() == ".gguf") return hadal::Tokenizer::from_gguf(hadal::Gguf(path));
  return hadal::Tokenizer::from_json(hadal::read_text(path), "", path.string());
}

static void encode(const hadal::Tokenizer& tokenizer) {
  std::string line, text;
  while (std::getline(std::cin, line)) {
    text.resize(std::stoul(line));
    std::cin.read(text.data(), std::streamsize(text.size()));
    std::string out;
    for (const int32_t token : tokenizer.encode(text)) out += std::to_string(token) + ' ';
    std::cout << out << '\n';
  }
}

static void decode(const hadal::Tokenizer& tokenizer) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream in(line);
    const std::vector<int32_t> tokens{std::istream_iterator<int32_t>(in), {}};
    const std::string text = tokenizer.decode(tokens);
    std::cout << text.size() << '\n' << text;
  }
}

static double seconds() {  // of this thread on a core: other programs on the machine do not count
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

static void bench(const hadal::Tokenizer& tokenizer, double load) {
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  double best = 1e9;
  size_t tokens = 0;
  for (int i = 0; i < 3; i++) {
    const double start = seconds();
    tokens = tokenizer.encode(text).size();
    best = std::min(best, seconds() - start);
  }
  std::printf("load %.3f s; %zu bytes, %zu tokens in %.4f s: %.1f MB/s\n", load, text.size(), tokens, best,
              double(text.size()) / best / 1e6);
}

int main(int count, char** arguments) {
  if (count != 3) return std::fputs("usage: tokenize_lines FOLDER|FILE.json|FILE.gguf encode|decode|bench\n", stderr), 2;
  std::ios::sync_with_stdio(false);
  const std::string mode = arguments[2];
  try {
    const double start = seconds();
    const hadal::Tokenizer tokenizer = open(arguments[1]);
    const double load = seconds() - start;
    if (mode == "encode") encode(tokenizer);
    if (mode == "decode") decode(tokenizer);
    if (mode == "bench") bench(tokenizer, load);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
