// The whole server before clients that do everything at once, and one that ends while they do: for the sanitizers.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "infer/model.h"
#include "model/source.h"
#include "serve/service.h"

namespace hadal {
namespace {

constexpr const char* key = "sesame";
constexpr const char* chat = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";

ServiceOptions service_options(const std::filesystem::path& folder) {
  ServiceOptions options;
  options.name = "tiny";
  options.gate.key = key;
  options.gate.keys = folder / "keys";
  options.gate.log = folder / "log";
  options.gate.log_content = true;
  options.gate.reply_seconds = 30;
  options.most_requests = 24;
  return options;
}

ModelConfig config_of(const ModelSource& source) {
  ModelConfig config = source.config();
  config.context = 4096;
  return config;
}

EngineOptions engine_options() {
  EngineOptions options;
  options.cache_rows = 4096;  // two long replies fill it
  options.prompt_chunk = 64;
  return options;
}

class Server {
 public:
  explicit Server(const std::filesystem::path& folder)
      : source_(HADAL_SOURCE "/tests/golden/llama/model"),
        model_(load_model(config_of(source_), source_.checkpoint())),
        service_(service_options(folder), source_.tokenizer(), ChatTemplate::parse(chat, "chat"), model_, engine_options(),
                 [](const std::string& problem) { ADD_FAILURE() << problem; }),
        thread_([this] {
          http_.run([this](HttpCall call, const std::shared_ptr<HttpReply>& reply) { service_.handle(std::move(call), reply); }, [] {},
                    [] {});
        }) {}
  ~Server() {
    http_.stop();
    thread_.join();
  }
  uint16_t port() const { return http_.port(); }
  void reload() { service_.reload(); }

 private:
  HttpServer http_{"127.0.0.1", 0};  // the last to go, as in `hadal serve`
  const ModelSource source_;
  const Model model_;
  Service service_;
  std::thread thread_;
};

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval patience{120, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;

  void send(const std::string& text) { ASSERT_EQ(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL), ssize_t(text.size())); }
  void post(const std::string& path, const std::string& body, const std::string& secret = key) {
    send("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + secret +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  void get(const std::string& path, const std::string& method = "GET") {
    send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + key + "\r\n\r\n");
  }
  std::string some() {
    char buffer[4096];
    const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
    return count > 0 ? std::string(buffer, size_t(count)) : "";
  }
  std::string all() {
    std::string text;
    for (std::string piece; !(piece = some()).empty();) text += piece;
    return text;
  }

 private:
  const int socket_;
};

std::string answer_to(uint16_t port, const std::string& path, const std::string& body, const std::string& secret = key) {
  Client client(port);
  client.post(path, body, secret);
  return client.all();
}

int status_of(const std::string& answer) { return answer.starts_with("HTTP/1.1 ") ? std::stoi(answer.substr(9, 3)) : 0; }

constexpr const char* endless = R"({"messages":[{"role":"user","content":"x"}],"max_tokens":3000,"logit_bias":{"299":-100},"stream":true})";
constexpr const char* tool =
    R"([{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}])";
const std::string says = R"("messages":[{"role":"user","content":"the thing"}],"max_tokens":9,"temperature":1)";

// One visit; whatever is answered has one of these statuses. 0: the client left.
void visit(uint16_t port, uint32_t kind, uint32_t number, const std::string& bounded) {
  const std::string n = std::to_string(number);
  const auto expect = [&](const std::string& answer, const std::vector<int>& statuses) {
    EXPECT_NE(std::ranges::find(statuses, status_of(answer)), statuses.end()) << kind << ": " << answer.substr(0, 500);
  };
  const std::vector<int> served{200, 429};
  switch (kind) {
    case 0:
      return expect(answer_to(port, "/v1/chat/completions", "{" + says + R"(,"stream":true,"seed":)" + n + "}"), served);
    case 1:
      return expect(answer_to(port, "/v1/completions", R"({"prompt":["the","thing )" + n + R"("],"n":2,"max_tokens":5,"echo":true})"),
                    served);
    case 2:
      return expect(answer_to(port, "/v1/chat/completions", "{" + says + R"(,"guided_regex":"[a-c]{3}-)" + n + R"("})"), served);
    case 3:
      return expect(answer_to(port, "/v1/messages",
                              "{" + says + R"(,"stream":true,"tool_choice":{"type":"any"},"tools":[{"name":"f","input_schema":{}}]})"),
                    served);
    case 4: {
      Client client(port);
      client.post("/v1/chat/completions", endless);
      return expect(client.some(), served);
    }
    case 5: {
      Client client(port);
      return client.post("/v1/chat/completions", endless);
    }
    case 6:
      return expect(answer_to(port, "/v1/embeddings", R"({"input":["a","b )" + n + R"("]})"), served);
    case 7: {
      const char* paths[] = {"/metrics", "/v1/models", "/v1/models/t%69ny", "/ready", "/", "/v1/model_cards"};
      Client client(port);
      client.get(paths[number % 6], number % 2 ? "GET" : "HEAD");
      return expect(client.all(), {200});
    }
    case 8: {
      Client client(port);
      client.send("\x01 garbage\r\n\r\n");
      return expect(client.all(), {400});
    }
    case 9:
      return expect(answer_to(port, "/v1/chat/completions", "{" + says, number % 2 ? key : "wrong"), {400, 401});
    case 10:
      return expect(answer_to(port, "/v1/chat/completions", "{" + says + R"(,"timeout":0.001})"), {200, 408, 429});
    case 11:
      return expect(
          answer_to(port, number % 2 ? "/tokenize" : "/apply-template", R"({"content":"x","messages":[{"role":"user","content":"x"}]})"),
          served);
    case 12:
      return expect(answer_to(port, "/v1/responses", R"({"input":"x","max_output_tokens":9,"stream":true})", bounded), served);
    case 13:
      return expect(answer_to(port, "/v1/chat/completions", "{" + says + R"(,"tool_choice":"required","tools":)" + tool + "}", bounded),
                    served);
    default:
      FAIL() << kind;
  }
}
constexpr uint32_t kinds = 14;

struct ServerStress : testing::Test {
  std::filesystem::path folder = testing::TempDir() + "server_stress_" + testing::UnitTest::GetInstance()->current_test_info()->name();
  ServerStress() {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    KeyRules rules;
    rules.name = "bounded", rules.requests = 2, rules.tokens_per_minute = 50'000;
    bounded = add_key(folder / "keys", rules);
  }
  ~ServerStress() override { std::filesystem::remove_all(folder); }
  std::string bounded;
};

TEST_F(ServerStress, EverythingAtOnce) {
  Server server(folder);
  std::atomic<bool> stop{false};
  std::thread operation([&] {
    while (!stop) server.reload(), std::this_thread::sleep_for(std::chrono::milliseconds(20));
  });
  constexpr uint32_t clients = 6, visits = 210;
  std::vector<std::thread> threads;
  for (uint32_t c = 0; c < clients; ++c)
    threads.emplace_back([&, c] {
      std::mt19937 draw(c);
      for (uint32_t i = 0; i < visits; ++i) visit(server.port(), (i + c) % kinds, draw() % 50, bounded);
    });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  operation.join();
  const auto is_idle = [&] {
    Client client(server.port());
    client.get("/ready");
    return client.all().find(R"("requests":0)") != std::string::npos;
  };
  for (int i = 0; i < 600 && !is_idle(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(is_idle()) << "no place is lost";
  const std::string last = answer_to(server.port(), "/v1/chat/completions", "{" + says + "}", bounded);
  EXPECT_EQ(status_of(last), 200) << "nor one of a key: " << last;
}

TEST_F(ServerStress, AnEndWhileRepliesRun) {
  for (int i = 0; i < 3; ++i) {
    std::vector<std::unique_ptr<Client>> clients;
    Server server(folder);
    for (int k = 0; k < 6; ++k) {
      clients.push_back(std::make_unique<Client>(server.port()));
      clients.back()->post("/v1/chat/completions", k < 4 ? endless : "{" + says + R"(,"guided_regex":"[a-z]{50}")" + "}");
    }
    EXPECT_EQ(status_of(clients[0]->some()), 200);
  }
}

}  // namespace
}  // namespace hadal
