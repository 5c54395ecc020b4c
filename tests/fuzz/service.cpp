// Any bytes as a call of the server, before a tiny model: the first byte says where to and whether the client stays, the rest is the body,
// or what follows the method for GET. Whatever it is, the answer is no fault of the server's, and JSON where it says so.
#include "serve/service.h"

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/pool.h"
#include "infer/model.h"
#include "model/source.h"

namespace {

using namespace hadal;

constexpr const char* chat =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls }}\n{% endfor %}assistant:{# tools tool_calls <tool_call> #}";
constexpr const char* routes[] = {"/v1/chat/completions", "/v1/completions",           "/v1/responses", "/v1/messages",
                                  "/v1/embeddings",       "/v1/messages/count_tokens", "/tokenize",     "/detokenize",
                                  "/apply-template",      "/v1/load_lora_adapter"};

class Client : public HttpReply {
 public:
  void send(int status, std::string type, std::string body, HttpHeaders) override {
    const bool honest = type != "application/json" || nlohmann::json::accept(body);
    if (status >= 500 || !honest) std::abort();
    end();
  }
  void open(std::string, HttpHeaders) override {}
  bool write(std::string) override { return !gone_; }
  void close(std::string) override { end(); }
  bool gone() const override { return gone_; }
  void when_gone(std::function<void()> call) override {
    if (gone_) call();
  }
  void call_at(std::chrono::steady_clock::time_point, std::function<void()>) override {}
  void leave() { gone_ = true; }
  void wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(60), [this] { return ended_; })) std::abort();
  }

 private:
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::atomic<bool> gone_{false};
};

struct Server {
  ModelSource source{HADAL_SOURCE "/tests/golden/llama/model"};
  Model model = load_model(source.config(), source.checkpoint());
  Service service{options(), source.tokenizer(),  ChatTemplate::parse(chat, "chat"),
                  model,     {.cache_rows = 128}, [](const std::string&) { std::abort(); }};

  static ServiceOptions options() {
    ServiceOptions options;
    options.name = "tiny";
    options.gate.reply_seconds = 0.001;
    return options;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static Server& server = *[] {
    set_pool_threads(1);  // requests come one at a time, and the model is tiny
    return new Server;
  }();
  const uint8_t first = data[0];
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool stays = first < 0x80;
  const auto client = std::make_shared<Client>();
  HttpCall call;
  if (const size_t route = first & 0x0f; route < std::size(routes)) {
    call.method = "POST", call.path = routes[route], call.body = rest;
  } else {
    call.method = first & 0x10 ? "GET" : "OPTIONS";
    call.path = rest.substr(0, rest.find_first_of("?\n"));
    if (const size_t mark = rest.find('?'); mark != rest.npos) call.query = rest.substr(mark + 1, rest.find('\n') - mark - 1);
    if (const size_t line = rest.find('\n'); line != rest.npos)
      call.headers = {{"Origin", rest.substr(line + 1)}, {"X-Request-Timeout", rest.substr(line + 1)}};
  }
  if (!stays) client->leave();
  server.service.handle(std::move(call), client);
  if (stays) client->wait();
  return 0;
}
