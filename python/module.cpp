// The module hadal._hadal: what the Python files of the package are written over. Python's lock is given up wherever something is computed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "core/error.h"
#include "core/pool.h"
#include "model/hub.h"
#include "model/prompt.h"
#include "model/reply.h"
#include "python/numbers.h"
#include "python/running_model.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hadal {
namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewIds = nb::ndarray<nb::numpy, int32_t, nb::ndim<1>>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using Unlocked = nb::gil_scoped_release;

std::vector<int32_t> vector_of(const Ids& ids) { return {ids.data(), ids.data() + ids.shape(0)}; }

std::string_view view_of(const nb::bytes& text) { return {text.c_str(), text.size()}; }

nb::bytes bytes_of(std::string_view text) { return nb::bytes(text.data(), text.size()); }

class RunningReply {  // what a reader holds; a reply that nobody holds any more is cancelled
 public:
  RunningReply(std::shared_ptr<RunningModel> model, std::shared_ptr<ReplyQueue> queue, uint64_t id)
      : model_(std::move(model)), queue_(std::move(queue)), id_(id) {}
  ~RunningReply() {
    const Unlocked unlocked;
    cancel();
    model_.reset();  // perhaps the last to hold it
  }
  void cancel() { model_->cancel(id_); }
  // Returns now and then so that Python can look for signals.
  bool wait(double seconds) {
    const Unlocked unlocked;
    return queue_->wait(seconds);
  }
  int fileno() { return queue_->descriptor(); }

  // (pieces as (is reasoning, text, ids), ids, log-probabilities of each id, how it finished or None)
  nb::tuple take() {
    const ReplyQueue::Taken taken = queue_->take();
    if (!taken.problem.empty()) throw Error("{}", taken.problem);
    nb::list pieces, ids, logprobs;
    for (const ReplyQueue::Part& part : taken.parts)
      pieces.append(nb::make_tuple(part.piece.kind == ReplyPiece::Kind::reasoning, part.piece.text, part.ids));
    for (const Token& token : taken.tokens) {
      ids.append(token.id);
      nb::list of_token;
      for (const Logprob& one : token.logprobs) of_token.append(nb::make_tuple(one.token, one.logprob));
      logprobs.append(of_token);
    }
    return nb::make_tuple(pieces, ids, logprobs, taken.finish ? nb::object(nb::str(taken.finish)) : nb::object(nb::none()));
  }

 private:
  std::shared_ptr<RunningModel> model_;
  std::shared_ptr<ReplyQueue> queue_;
  uint64_t id_;
};

struct Asked {  // keyword arguments of submit
  Request request;
  std::vector<std::string> stops;
  bool end_included = false;
};

Asked asked(const Ids& ids, nb::kwargs& options, const RunningModel& model) {
  Asked out;
  Request& r = out.request;
  r.prompt = vector_of(ids);
  r.stop_tokens = model.loaded().end_tokens;
  for (const auto& [key, value] : options) {
    const std::string name = nb::cast<std::string>(key);
    const auto take = [&, v = nb::handle(value)](auto& field) {
      if (!nb::try_cast(v, field))
        throw Error("{}: expected {}, found {}", name,
                    std::is_same_v<std::decay_t<decltype(field)>, float> ? "a number" : "a whole number in range", nb::repr(v).c_str());
    };
    if (name == "temperature")
      take(r.sampling.temperature);
    else if (name == "top_k")
      take(r.sampling.top_k);
    else if (name == "top_p")
      take(r.sampling.top_p);
    else if (name == "min_p")
      take(r.sampling.min_p);
    else if (name == "repeat_penalty")
      take(r.sampling.repeat_penalty);
    else if (name == "presence_penalty")
      take(r.sampling.presence_penalty);
    else if (name == "frequency_penalty")
      take(r.sampling.frequency_penalty);
    else if (name == "seed")
      take(r.sampling.seed);
    else if (name == "max_tokens")
      take(r.max_tokens);
    else if (name == "logprobs")
      take(r.logprobs);
    else if (name == "logit_bias")
      r.sampling.logit_bias = nb::cast<std::vector<std::pair<int32_t, float>>>(value);
    else if (name == "stop_tokens")
      r.stop_tokens = nb::cast<std::vector<int32_t>>(value);
    else if (name == "stop")
      out.stops = nb::cast<std::vector<std::string>>(value);
    else if (name == "end_included")
      out.end_included = nb::cast<bool>(value);
    else
      throw Error("there is no option {}", name);
  }
  return out;
}

std::shared_ptr<RunningModel> load(const std::string& reference, const ModelOptions& options, const Masks& masks) {
  const Unlocked unlocked;
  return std::make_shared<RunningModel>(std::make_shared<const LoadedModel>(reference, options, masks), masks);
}

std::unique_ptr<RunningReply> submit(const std::shared_ptr<RunningModel>& model, const Ids& ids, bool starts_in_reasoning,
                                     bool separate_reasoning, nb::kwargs options) {
  Asked what = asked(ids, options, *model);
  std::vector<int32_t> ends;
  if (what.end_included) ends.swap(what.request.stop_tokens);
  const Unlocked unlocked;
  ReplyStream text(model->loaded().tokenizer, std::move(what.stops), starts_in_reasoning, separate_reasoning);
  const auto queue = std::make_shared<ReplyQueue>(std::move(text), std::move(ends));
  return std::make_unique<RunningReply>(model, queue, model->submit(std::move(what.request), queue));
}

Logits logits(const RunningModel& model, const Ids& ids) {
  const std::vector<int32_t> tokens = vector_of(ids);
  const size_t rows = tokens.size(), cols = size_t(model.config().vocab);
  auto out = std::make_unique<float[]>(std::max<size_t>(rows * cols, 1));
  {
    const Unlocked unlocked;
    model.logits(tokens, out.get());
  }
  nb::capsule owner(out.get(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Logits(out.release(), {rows, cols}, owner);
}

struct Conversation {  // what a chat template is given
  std::vector<Message> turns;
  RenderOptions options;
};

Conversation conversation_of(const RunningModel& model, const std::vector<nb::dict>& messages, bool add_generation_prompt,
                             const std::string& tools, const std::string& variables) {
  const LoadedModel& loaded = model.loaded();
  if (!loaded.chat_template)
    throw Error("{} has no chat template: it is a base model, which continues texts", loaded.source.path().string());
  Conversation out;
  for (const nb::dict& message : messages) {
    Message& turn = out.turns.emplace_back();
    const auto take = [&](const char* key, std::string& field) {
      if (message.contains(key)) field = nb::cast<std::string>(message[key]);
    };
    take("role", turn.role), take("content", turn.content), take("reasoning_content", turn.reasoning);
    take("tool_calls", turn.tool_calls), take("name", turn.name), take("tool_call_id", turn.tool_call_id);
  }
  const Tokenizer& t = loaded.tokenizer;
  const auto text_of = [&](std::optional<int32_t> token) { return token ? std::string(t.bytes(*token)) : std::string(); };
  out.options.add_generation_prompt = add_generation_prompt;
  out.options.tools = tools, out.options.extra = variables;
  out.options.begin_token = text_of(t.begin_token()), out.options.end_token = text_of(t.end_token());
  return out;
}

NewIds ids_of(std::vector<int32_t> tokens) {
  auto* kept = new std::vector<int32_t>(std::move(tokens));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<int32_t>*>(p); });
  return NewIds(kept->data(), {kept->size()}, owner);
}

nb::bytes render(const RunningModel& model, const std::vector<nb::dict>& messages, bool add_generation_prompt, const std::string& tools,
                 const std::string& variables) {
  const Conversation c = conversation_of(model, messages, add_generation_prompt, tools, variables);
  return bytes_of(model.loaded().chat_template->render(c.turns, c.options));
}

// (ids, whether the reply begins inside the reasoning). The template alone writes control tokens, as in model/prompt.h.
nb::tuple chat(const RunningModel& model, const std::vector<nb::dict>& messages, bool add_generation_prompt, const std::string& tools,
               const std::string& variables) {
  Conversation c = conversation_of(model, messages, add_generation_prompt, tools, variables);
  const Tokenizer& t = model.loaded().tokenizer;
  c.options.shield = [&](const std::string& text, const std::string& role) { return t.shield(text, role == "assistant"); };
  const std::string text = model.loaded().chat_template->render(c.turns, c.options);
  return nb::make_tuple(ids_of(t.encode(text, Tokenizer::Added::shielded)), prompt_opens_reasoning(text));
}

NewIds encode(const RunningModel& model, const nb::bytes& text, bool special, bool begin) {
  const Tokenizer& t = model.loaded().tokenizer;
  std::vector<int32_t> tokens = t.encode(view_of(text), special ? Tokenizer::Added::match : Tokenizer::Added::as_text);
  const std::optional<int32_t> first = t.begin_token();
  if (begin && t.adds_begin() && first && (tokens.empty() || tokens.front() != *first)) tokens.insert(tokens.begin(), *first);
  return ids_of(std::move(tokens));
}

nb::bytes decode(const RunningModel& model, const Ids& ids, bool skip_special) {
  const Tokenizer& t = model.loaded().tokenizer;
  std::vector<int32_t> tokens = vector_of(ids);
  for (const int32_t token : tokens)
    if (token < 0 || token >= std::max<int64_t>(t.size(), model.config().vocab))
      throw Error("token id {} is out of range: expected 0 to {}", token, t.size() - 1);
  if (skip_special) std::erase_if(tokens, [&](int32_t token) { return t.is_special(token); });
  return bytes_of(t.decode(tokens));
}

}  // namespace
}  // namespace hadal

NB_MODULE(_hadal, m) {
  using namespace hadal;
  nb::set_leak_warnings(false);  // a model that a program still holds at its end is no leak
  nb::exception<Error>(m, "Error", PyExc_ValueError);
  m.attr("version") = HADAL_VERSION;

  nb::class_<Masks>(m, "Masks")
      .def(nb::init<int64_t, int64_t, int64_t>(), "window"_a = 0, "sinks"_a = 0, "top_blocks"_a = 0)
      .def_ro("window", &Masks::window)
      .def_ro("sinks", &Masks::sinks)
      .def_ro("top_blocks", &Masks::top_blocks);

  nb::class_<RunningReply>(m, "Reply")
      .def("wait", &RunningReply::wait, "seconds"_a)
      .def("take", &RunningReply::take)
      .def("fileno", &RunningReply::fileno)
      .def("cancel", [](RunningReply& reply) {
        const Unlocked unlocked;
        reply.cancel();
      });

  nb::class_<RunningModel>(m, "Model")
      .def("submit", &submit, "ids"_a, "starts_in_reasoning"_a, "separate_reasoning"_a, "options"_a)
      .def("logits", &logits, "ids"_a)
      .def("masked", &RunningModel::masked, "masks"_a)
      .def("close",
           [](RunningModel& model) {
             const Unlocked unlocked;
             model.close();
           })
      .def("room",
           [](RunningModel& model) {
             const Unlocked unlocked;
             return model.room();
           })
      .def("config", [](const RunningModel& model) { return numbers_of(model.config(), model.loaded().end_tokens); })
      .def("path", [](const RunningModel& model) { return model.loaded().source.path().string(); })
      .def("has_chat", [](const RunningModel& model) { return model.loaded().chat_template.has_value(); })
      .def("render", &render, "messages"_a, "add_generation_prompt"_a, "tools"_a, "variables"_a)
      .def("chat", &chat, "messages"_a, "add_generation_prompt"_a, "tools"_a, "variables"_a)
      .def("encode", &encode, "text"_a, "special"_a, "begin"_a)
      .def("decode", &decode, "ids"_a, "skip_special"_a)
      .def("piece", [](const RunningModel& model, int32_t id) { return bytes_of(model.loaded().tokenizer.bytes(id)); })
      .def("find", [](const RunningModel& model, const std::string& text) { return model.loaded().tokenizer.find(text); })
      .def("vocab_size", [](const RunningModel& model) { return model.loaded().tokenizer.size(); })
      .def("begin_token", [](const RunningModel& model) { return model.loaded().tokenizer.begin_token(); })
      .def("end_token", [](const RunningModel& model) { return model.loaded().tokenizer.end_token(); });

  m.def(
      "load",
      [](const std::string& reference, const Masks& masks, const std::string& weights, const std::string& cache, const std::string& draft,
         std::vector<std::pair<std::string, std::string>> keep, int64_t context, int64_t replies, int64_t chunk, int threads) {
        return load(reference, {weights, cache, draft, std::move(keep), context, replies, chunk, threads}, masks);
      },
      "reference"_a, "masks"_a, "weights"_a, "cache"_a, "draft"_a, "keep"_a, "context"_a, "replies"_a, "chunk"_a, "threads"_a);
  m.def("resolve", [](const std::string& reference) { return resolve_model(reference).string(); });
  m.def("cache_folder", [] { return cache_folder().string(); });
  m.def("known_models", [] {
    std::vector<std::string> names;
    for (const KnownModel& known : known_models()) names.push_back(known.name);
    return names;
  });
  m.def(
      "pull",
      [](const std::string& reference, int attempts) {
        const Unlocked unlocked;
        PullOptions options;
        options.attempts = attempts;
        return pull(reference, options).string();
      },
      "reference"_a, "attempts"_a);
  m.def("threads", [] { return pool().threads(); });
}
