#include "eval/answers.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "infer/engine.h"
#include "model/prompt.h"
#include "model/reply.h"

namespace hadal {
namespace {

constexpr int resamples = 1000;

std::string trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r\n";
  const size_t first = text.find_first_not_of(spaces);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(spaces) - first + 1));
}

std::string readable(const std::string& bytes) {  // a file of answers gives back what was written
  Utf8Stream characters;
  std::string text = characters.push(bytes);
  return text + characters.finish();
}

Prompt prompt_of(const Example& question, const Tokenizer& tokenizer, const ChatTemplate& chat) {
  Message message;
  message.role = "user";
  message.content = question.prompt();
  return chat_prompt(tokenizer, chat, {&message, 1});
}

// U+FF10 to U+FF19 as 0 to 9; punctuation of both scripts as spaces.
std::string plain_letters(std::string_view text) {
  static const std::vector<std::string_view> marks = {"。", "，", "、", "？", "！", "：", "；", "“",
                                                      "”",  "‘",  "’",  "（", "）", "《", "》", "　"};
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const std::string_view three = text.substr(at, 3);
    if (std::ranges::find(marks, three) != marks.end()) {
      out += ' ';
      at += 3;
    } else if (three.size() == 3 && three.starts_with("\xEF\xBC") && uint8_t(three[2]) >= 0x90 && uint8_t(three[2]) <= 0x99) {
      out += char('0' + (uint8_t(three[2]) - 0x90));
      at += 3;
    } else {
      const unsigned char c = uint8_t(text[at++]);
      out += std::ispunct(c) || std::isspace(c) ? ' ' : char(std::tolower(c));
    }
  }
  return out;
}

std::vector<int32_t> chosen(std::span<const Example> questions, const std::string& type, const std::string& language) {
  std::vector<int32_t> which;
  for (size_t i = 0; i < questions.size(); ++i)
    if ((type.empty() || questions[i].type == type) && (language.empty() || questions[i].language == language)) which.push_back(int32_t(i));
  return which;
}

double share(std::span<const int32_t> drawn, std::span<const uint8_t> right) {
  int64_t sum = 0;
  for (const int32_t i : drawn) sum += right[size_t(i)];
  return drawn.empty() ? 0 : double(sum) / double(drawn.size());
}

std::vector<uint8_t> at(std::span<const uint8_t> all, std::span<const int32_t> which) {
  std::vector<uint8_t> some;
  for (const int32_t i : which) some.push_back(all[size_t(i)]);
  return some;
}

// Whether the commonest answer of its kind is right.
std::vector<uint8_t> majority_right(std::span<const Example> questions) {
  std::map<std::pair<std::string, std::string>, std::map<std::string, int64_t>> counts;
  for (const Example& q : questions) ++counts[{q.type, q.language}][q.answer];
  std::map<std::pair<std::string, std::string>, std::string> commonest;
  for (const auto& [kind, answers] : counts)
    commonest[kind] = std::ranges::max_element(answers, {}, [](const auto& each) { return each.second; })->first;
  std::vector<uint8_t> right;
  for (const Example& q : questions) right.push_back(commonest[{q.type, q.language}] == q.answer);
  return right;
}

std::vector<uint8_t> exactly_right(std::span<const Example> questions, std::span<const std::string> answers) {
  if (questions.empty()) throw Error("there are no questions");
  if (questions.size() != answers.size()) throw Error("{} answers, expected one to each of {} questions", answers.size(), questions.size());
  std::vector<uint8_t> right;
  for (size_t i = 0; i < questions.size(); ++i) right.push_back(trimmed(questions[i].answer) == trimmed(answers[i]));
  return right;
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

std::vector<std::string> answer_questions(const Model& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                                          std::span<const Example> questions, const AnswerOptions& options) {
  std::vector<Prompt> prompts;
  size_t longest = 1;
  for (const Example& question : questions) {
    prompts.push_back(prompt_of(question, tokenizer, chat));
    longest = std::max(longest, prompts.back().tokens.size());
  }
  EngineOptions engine_options;
  engine_options.cache = options.cache;
  engine_options.max_rows = std::max<int64_t>(512, options.batch);
  engine_options.prompt_chunk = options.chunk;
  engine_options.sequences = options.batch;
  engine_options.cache_rows = options.batch * (int64_t(longest) + options.max_tokens + 64);
  engine_options.share_prefixes = false;  // no two begin alike
  engine_options.drafting = Drafting::off;
  Engine engine(model, engine_options);

  std::vector<std::vector<int32_t>> replies(questions.size());
  int64_t done = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    Request request;
    request.prompt = prompts[i].tokens;
    request.sampling.temperature = 0;
    request.max_tokens = options.max_tokens;
    request.stop_tokens = end_tokens(model.config, tokenizer);
    request.on_token = [&replies, i](const Token& token) {
      replies[i].push_back(token.id);
      return true;
    };
    request.on_finish = [&done](Finish) { ++done; };
    engine.submit(std::move(request));
  }
  while (engine.step())
    if (options.progress && !options.progress(done, int64_t(questions.size()))) return {};

  std::vector<std::string> answers;
  for (size_t i = 0; i < questions.size(); ++i)
    answers.push_back(trimmed(split_reasoning(readable(tokenizer.decode(replies[i])), prompts[i].starts_in_reasoning).answer));
  return answers;
}

std::string normalized_answer(std::string_view answer) {
  std::string out, word;
  const auto end_word = [&] {
    if (word != "a" && word != "an" && word != "the") out += word;
    word.clear();
  };
  for (const char c : plain_letters(answer)) {
    if (c == ' ') {
      end_word();
    } else {
      word += c;
    }
  }
  end_word();
  return out;
}

Interval bootstrap(int64_t count, uint64_t seed, const std::function<double(std::span<const int32_t>)>& statistic) {
  CHECK(count > 0);
  std::vector<double> values;
  std::vector<int32_t> drawn(static_cast<size_t>(count));
  uint64_t draw = mix_bits(seed);
  for (int r = 0; r < resamples; ++r) {
    for (int32_t& i : drawn) i = int32_t((mix_bits(draw++) >> 32) * uint64_t(count) >> 32);
    values.push_back(statistic(drawn));
  }
  std::ranges::sort(values);
  const auto percentile = [&](double p) { return values[size_t(std::lround(p * (resamples - 1)))]; };
  return {percentile(0.025), percentile(0.975)};
}

std::vector<Score> score_answers(std::span<const Example> questions, std::span<const std::string> answers, uint64_t seed) {
  const std::vector<uint8_t> exact = exactly_right(questions, answers), majority = majority_right(questions);
  std::vector<uint8_t> normalized;
  for (size_t i = 0; i < questions.size(); ++i)
    normalized.push_back(normalized_answer(questions[i].answer) == normalized_answer(answers[i]));

  std::set<std::pair<std::string, std::string>> types, languages, both;
  for (const Example& q : questions) types.insert({q.type, ""}), languages.insert({"", q.language}), both.insert({q.type, q.language});
  std::vector<std::pair<std::string, std::string>> groups{{"", ""}};
  for (const auto* set : {&types, &languages, &both})
    for (const auto& group : *set)
      if (std::ranges::find(groups, group) == groups.end()) groups.push_back(group);

  std::vector<Score> scores;
  for (const auto& [type, language] : groups) {
    const std::vector<int32_t> which = chosen(questions, type, language);
    const std::vector<uint8_t> right = at(exact, which);
    scores.push_back({type, language, int64_t(which.size()), share(which, exact), share(which, normalized),
                      bootstrap(int64_t(which.size()), seed, [&](std::span<const int32_t> drawn) { return share(drawn, right); }),
                      share(which, majority)});
  }
  return scores;
}

std::vector<Retention> compare_answers(std::span<const Example> questions, std::span<const std::string> student,
                                       std::span<const std::string> teacher, uint64_t seed) {
  const std::vector<uint8_t> student_right = exactly_right(questions, student), teacher_right = exactly_right(questions, teacher),
                             majority = majority_right(questions);
  std::set<std::string> types{""};
  for (const Example& q : questions) types.insert(q.type);
  std::vector<Retention> all;
  for (const std::string& type : types) {
    const std::vector<int32_t> which = chosen(questions, type, "");
    const std::vector<uint8_t> s = at(student_right, which), t = at(teacher_right, which), c = at(majority, which);
    const auto kept = [&](std::span<const int32_t> drawn) { return ratio(share(drawn, s), share(drawn, t)); };
    const auto corrected = [&](std::span<const int32_t> drawn) {
      return ratio(share(drawn, s) - share(drawn, c), share(drawn, t) - share(drawn, c));
    };
    std::vector<int32_t> every(which.size());
    std::iota(every.begin(), every.end(), 0);
    Retention r{type, int64_t(which.size()), share(every, t), share(every, s), share(every, c), kept(every), corrected(every), {}, {}, 0};
    r.kept_interval = bootstrap(r.questions, seed, kept);
    r.corrected_interval = bootstrap(r.questions, seed, corrected);
    for (const int32_t i : which) r.agreement += student[size_t(i)] == teacher[size_t(i)] ? 1. / double(which.size()) : 0;
    all.push_back(r);
  }
  return all;
}

}  // namespace hadal
