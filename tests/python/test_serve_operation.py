"""Whoever runs the server: keys and their limits, ids, deadlines, origins, the log."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from conftest import GOLDEN, ROOT, TEMPLATE, copy_of, read_golden, wait_until
from test_serve import ENDLESS as LONG
from test_serve import Server, metrics_of, raw_request, requests_of

openai = pytest.importorskip("openai")

ENDLESS = LONG | {"max_tokens": 60000}
BODY = {"messages": [{"role": "user", "content": "the thing"}], "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    return copy_of(tmp_path_factory.mktemp("operation") / "chatty", llama.model, TEMPLATE, max_position_embeddings=65536)


def ask(server, path="/v1/chat/completions", body=BODY, method=None, **headers):
    """status, headers, body as JSON where it is JSON"""
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.base + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, found, text = reply.status, reply.headers, reply.read().decode()
    except urllib.error.HTTPError as error:
        status, found, text = error.code, error.headers, error.read().decode()
    return status, found, json.loads(text) if text.startswith("{") else text


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Held:
    """A reply that never ends, until it is left."""

    def __init__(self, server, head="", **more):
        before = requests_of(server)
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.sendall(raw_request(ENDLESS | more, head=head))
        assert wait_until(lambda: requests_of(server) == before + 1)

    def leave(self):
        self.socket.close()


@pytest.fixture(scope="module")
def keyed(hadal, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    file, log = folder / "keys.txt", folder / "log.jsonl"
    make = lambda name, *options: hadal.run("keys", "add", file, name, *options).stdout.strip()
    keys = {
        "free": make("free"),
        "one": make("one", "--requests", 1),
        "slow": make("slow", "--tokens-per-minute", 60),
        "other": make("other", "--models", "big,bigger"),
        "over": make("over", "--expires", "2001-01-01"),
    }
    server = Server(hadal, model, "--keys", file, "--log", log)
    server.keys, server.file, server.log = keys, file, log
    yield server
    assert server.end() == 0


def test_keys_are_asked_for(keyed):
    for head in [{}, bearer("no"), bearer(keyed.keys["free"][:-1]), bearer(keyed.keys["over"]), {"Authorization": keyed.keys["free"]}]:
        status, headers, reply = ask(keyed, **head)
        assert (status, reply["error"]["code"]) == (401, "invalid_api_key"), head
        assert headers["WWW-Authenticate"] == "Bearer"
    assert ask(keyed, **bearer(keyed.keys["free"]))[0] == 200
    assert ask(keyed, x_api_key=keyed.keys["free"])[0] == 200
    for path in ["/tokenize", "/detokenize", "/apply-template"]:
        assert ask(keyed, path)[0] == 401, "what computes asks for a key"
    for path in ["/health", "/ready", "/metrics", "/version"]:
        assert ask(keyed, path, None)[0] == 200, "who looks after the server needs none"


def test_a_key_may_not_use_every_model(keyed):
    status, _, reply = ask(keyed, **bearer(keyed.keys["other"]))
    assert (status, reply["error"]["code"]) == (403, "model_not_allowed")


def test_requests_at_a_time(keyed):
    head = bearer(keyed.keys["one"])
    status, headers, _ = ask(keyed, **head)
    assert status == 200 and headers["x-ratelimit-limit-requests"] == "1"
    for _ in range(5):
        assert ask(keyed, **head)[0] == 200 and requests_of(keyed) == 0, "places are free again before their client knows"
    held = Held(keyed, f"Authorization: {head['Authorization']}\r\n")
    status, headers, reply = ask(keyed, **head)
    assert (status, reply["error"]["code"], headers["Retry-After"]) == (429, "rate_limit_exceeded", "1")
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert ask(keyed, **bearer(keyed.keys["free"]))[0] == 200, "others are not held up"
    held.leave()
    assert wait_until(lambda: requests_of(keyed) == 0)
    assert wait_until(lambda: ask(keyed, **head)[0] == 200)
    assert ask(keyed, body=BODY | {"n": 2}, **head)[0] == 429, "two choices are two requests"


def test_tokens_per_minute(keyed):
    head = bearer(keyed.keys["slow"])
    status, headers, _ = ask(keyed, body=BODY | {"max_tokens": 100, "logit_bias": ENDLESS["logit_bias"]}, **head)
    assert status == 200 and headers["x-ratelimit-limit-tokens"] == "60"
    status, headers, reply = ask(keyed, **head)
    assert (status, reply["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["Retry-After"]) <= 120, "more than a minute's tokens were taken: they come back"
    assert headers["x-ratelimit-remaining-tokens"] == "0" and headers["x-ratelimit-reset-tokens"].startswith("1m")
    client = keyed.client.with_options(api_key=keyed.keys["slow"])
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="tiny", messages=BODY["messages"])


def test_keys_change_while_replies_run(hadal, keyed):
    added = hadal.run("keys", "add", keyed.file, "late").stdout.strip()
    gone = keyed.keys["free"]
    assert ask(keyed, **bearer(added))[0] == 401
    with socket.create_connection(("127.0.0.1", keyed.port), timeout=60) as s:
        s.sendall(raw_request(ENDLESS | {"max_tokens": 8000, "stream": True}, head=f"Authorization: Bearer {gone}\r\n"))
        received = s.recv(10)
        hadal.run("keys", "remove", keyed.file, "free")
        keyed.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: ask(keyed, **bearer(added))[0] == 200)
        assert ask(keyed, **bearer(gone))[0] == 401
        while b"[DONE]" not in received:
            piece = s.recv(65536)
            assert piece, "a running reply is not touched"
            received += piece
    with open(keyed.file, "a") as file:
        file.write("nonsense\n")
    keyed.process.send_signal(signal.SIGHUP)
    assert ask(keyed, **bearer(added))[0] == 200, "a broken file changes nothing"
    text = keyed.file.read_text().removesuffix("nonsense\n")
    keyed.file.write_text(text)
    assert stat.S_IMODE(os.stat(keyed.file).st_mode) == 0o600


def test_the_log_tells_who_and_how_much_but_not_what(keyed):
    status, headers, reply = ask(keyed, x_request_id="mine-1", **bearer(keyed.keys["one"]))
    assert status == 200
    assert wait_until(lambda: any(line["id"] == "mine-1" for line in lines_of(keyed.log)))
    line = [line for line in lines_of(keyed.log) if line["id"] == "mine-1"][0]
    expected = {"key": "one", "method": "POST", "path": "/v1/chat/completions", "status": 200, "model": "tiny", "finish": "length"}
    assert {name: line[name] for name in expected} == expected
    assert (line["prompt_tokens"], line["reply_tokens"]) == (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"])
    assert 0 < line["first_token_ms"] <= line["total_ms"]
    text = keyed.log.read_text()
    assert "the thing" not in text and reply["choices"][0]["message"]["content"] not in text
    assert not any(secret[15:] in text for secret in keyed.keys.values())


def test_ids(hadal, model):
    server = Server(hadal, model)
    assert ask(server, x_request_id="abc-123")[1]["x-request-id"] == "abc-123"
    made = [ask(server)[1]["x-request-id"] for _ in range(2)]
    assert made[0] != made[1] and all(one.startswith("req_") for one in made)
    for wrong in ["a b", "x" * 129, '"}{"', "é"]:
        assert ask(server, x_request_id=wrong)[1]["x-request-id"].startswith("req_"), "what could deceive a log is replaced"
    assert ask(server, "/nowhere")[1]["x-request-id"] and ask(server, body={})[1]["x-request-id"]
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(raw_request(BODY | {"stream": True}, head="X-Request-Id: streamed\r\n"))
        assert b"x-request-id: streamed\r\n" in s.recv(4096)
    assert server.end() == 0


def test_deadlines(hadal, model):
    server = Server(hadal, model, "--replies", 1)
    status, _, reply = ask(server, body=ENDLESS | {"timeout": 0.3})
    assert status == 200 and reply["choices"][0]["finish_reason"] == "length", "what has come is an answer"
    assert 0 < reply["usage"]["completion_tokens"] < ENDLESS["max_tokens"]
    assert ask(server, body=ENDLESS, x_request_timeout="0.3")[2]["usage"]["completion_tokens"] < ENDLESS["max_tokens"]
    long = BODY | {"messages": [{"role": "user", "content": "word " * 2000}]}  # 8,000 tokens, which take half a second to read
    status, _, reply = ask(server, body=long | {"timeout": 0.01})
    assert (status, reply["error"]["code"]) == (408, "timeout"), "nothing has come"
    status, _, text = ask(server, body=long | {"timeout": 0.01, "stream": True})
    assert status == 200 and '"code":"timeout"' in text and "[DONE]" not in text
    for wrong in [{"timeout": 0}, {"timeout": "soon"}, {"timeout": -1}]:
        status, _, reply = ask(server, body=BODY | wrong)
        assert (status, reply["error"]["param"]) == (400, "timeout")
    assert ask(server, x_request_timeout="soon")[0] == 400
    assert wait_until(lambda: requests_of(server) == 0)
    counted = metrics_of(server)
    assert counted['hadal_replies_total{finish="timeout"}'] == 4
    assert server.end() == 0


def test_no_reply_is_longer_than_the_server_allows(hadal, model):
    server = Server(hadal, model, "--reply-seconds", 0.5)
    status, _, reply = ask(server, body=ENDLESS | {"timeout": 1000})
    assert status == 200 and reply["usage"]["completion_tokens"] < ENDLESS["max_tokens"]
    assert server.end() == 0


def preflight(server, origin, path="/v1/chat/completions"):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    return ask(server, path, None, "OPTIONS", **headers)


def test_origins(hadal, model):
    server = Server(hadal, model, "--allow-origin", "https://good.example", "--allow-origin", "http://localhost:3000")
    status, headers, _ = preflight(server, "https://good.example")
    assert status == 204 and headers["Access-Control-Allow-Origin"] == "https://good.example"
    assert headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-os" and "POST" in headers["Access-Control-Allow-Methods"]
    assert preflight(server, "https://evil.example")[1]["Access-Control-Allow-Origin"] is None
    assert preflight(server, "null")[1]["Access-Control-Allow-Origin"] is None
    status, headers, _ = ask(server, Origin="http://localhost:3000")
    assert status == 200 and headers["Access-Control-Allow-Origin"] == "http://localhost:3000" and headers["Vary"] == "Origin"
    status, headers, reply = ask(server, Origin="https://evil.example")
    assert (status, reply["error"]["code"]) == (403, "origin_refused"), "a page elsewhere could ask without reading"
    assert ask(server, Origin=server.base)[0] == 200, "the server's own page"
    assert server.end() == 0
    server = Server(hadal, model, "--allow-origin", "*")
    assert ask(server, Origin="https://any.example")[1]["Access-Control-Allow-Origin"] == "https://any.example"
    assert server.end() == 0


def test_names(hadal, model):
    server = Server(hadal, model, "--allow-host", "box.example")
    for name in ["localhost", "LOCALHOST:80", "127.0.0.1", f"127.0.0.1:{server.port}", "[::1]:8080", "box.example", "a.localhost"]:
        assert ask(server, Host=name)[0] == 200, name
    for name in ["evil.example", "127.0.0.1.evil.example", "127.evil.example:80", "localhost.evil.example", "x"]:
        status, _, reply = ask(server, Host=name)
        assert (status, reply["error"]["code"]) == (403, "host_refused"), name
    assert server.end() == 0


def test_limits_of_a_request(hadal, model):
    server = Server(hadal, model, "--body-bytes", 1000, "--head-bytes", 500, "--body-seconds", 1)
    status, headers, reply = ask(server, body={"prompt": "x" * 1000})
    assert (status, reply["error"]["message"]) == (413, "the body is larger than 1000 bytes") and headers["x-request-id"]
    status, _, reply = ask(server, X_Long="y" * 500)
    assert (status, reply["error"]["message"]) == (431, "the head is larger than 500 bytes")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        assert s.recv(100) == b"", "who stops half way is not waited for"
    counted = metrics_of(server)
    assert counted['hadal_http_answers_total{status="413"}'] == counted['hadal_http_answers_total{status="431"}'] == 1
    assert server.end() == 0


def test_refusals_have_the_shape_of_their_interface(hadal, model, tmp_path):
    """What no handler sees is told to Anthropic's clients in their words, too."""
    keys = tmp_path / "keys.txt"
    one = hadal.run("keys", "add", keys, "one", "--requests", 1).stdout.strip()
    body = {"model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]}
    server = Server(hadal, model, "--keys", keys, "--body-bytes", 1000)
    kind_of = lambda body=body, **headers: ask(server, "/v1/messages", body, **headers)
    assert kind_of()[2]["error"]["type"] == "authentication_error"
    assert kind_of(body | {"system": "x" * 1000}, **bearer(one))[2]["error"]["type"] == "request_too_large"
    held = Held(server, f"Authorization: Bearer {one}\r\n")
    status, headers, reply = kind_of(**bearer(one))
    assert (status, reply["type"], reply["error"]["type"], headers["Retry-After"]) == (429, "error", "rate_limit_error", "1")
    held.leave()
    assert server.end() == 0
    server = Server(hadal, model, "--reply-seconds", 5)
    assert kind_of(Host="evil.example")[2]["error"]["type"] == "permission_error"
    status, _, reply = kind_of(x_request_timeout="soon")
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error"), "and not 500"
    assert server.end() == 0


def test_head_is_get_without_the_body(hadal, model):
    server = Server(hadal, model)
    for path in ["/", "/health", "/v1/models", "/nowhere"]:
        received = {}
        for method in ("GET", "HEAD"):
            with socket.create_connection(("127.0.0.1", server.port)) as s:
                s.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nx-request-id: a\r\nConnection: close\r\n\r\n".encode())
                received[method] = b"".join(iter(lambda: s.recv(65536), b""))  # noqa: B023
        head, _, body = received["GET"].partition(b"\r\n\r\n")
        assert body and received["HEAD"] == head + b"\r\n\r\n", path
    assert server.end() == 0


def test_names_in_paths_may_be_coded(hadal, model):
    server = Server(hadal, model, name="org/tiny model")
    for path in ["/v1/models/org/tiny%20model", "/v1/models/org%2Ftiny%20model"]:
        assert ask(server, path, None)[2]["id"] == "org/tiny model"
    for path in ["/v1/models/org%2", "/v1/models/%", "/v1/models/%zz", "/v1/models/%00"]:
        assert ask(server, path, None)[0] == 404
    assert server.client.models.retrieve("org/tiny model").id == "org/tiny model"
    assert server.end() == 0


def test_a_log_is_moved_away_and_may_hold_the_content(hadal, model, tmp_path):
    log = tmp_path / "log"
    server = Server(hadal, model, "--log", log, "--log-content")
    reply = ask(server)[2]
    assert wait_until(lambda: log.exists() and len(lines_of(log)) == 1)
    line = lines_of(log)[0]
    assert "the thing" in line["asked"] and line["answered"] == reply["choices"][0]["message"]["content"]
    log.rename(tmp_path / "old")
    server.process.send_signal(signal.SIGHUP)
    assert wait_until(log.exists)
    text = "a\nb\u2028\"{}\x1b[31m"
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        body = BODY | {"stream": True, "messages": [{"role": "user", "content": text}]}
        s.sendall(raw_request(body, "/v1/chat/completions", "Connection: close\r\n"))
        while s.recv(65536):
            pass
    assert wait_until(lambda: len(lines_of(log)) == 1), "one line whatever the content"
    assert json.loads(lines_of(log)[0]["asked"])["messages"][0]["content"] == text
    assert "\x1b" not in log.read_text() and len(lines_of(tmp_path / "old")) == 1
    assert server.end() == 0
    assert len(lines_of(log)) == 1


def test_a_disk_that_is_full_costs_lines_not_replies(hadal, model):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    server = Server(hadal, model, "--log", "/dev/full")
    for _ in range(3):
        assert ask(server)[0] == 200
    assert wait_until(lambda: metrics_of(server)["hadal_log_lines_dropped_total"] >= 3)
    assert server.end() == 0


def test_priorities_are_bounded_by_the_key(hadal, model, tmp_path):
    keys = tmp_path / "keys.txt"
    high, low = (hadal.run("keys", "add", keys, name, "--priority", p).stdout.strip() for name, p in [("high", 5), ("low", -5)])
    server = Server(hadal, model, "--keys", keys)
    assert ask(server, body=BODY | {"priority": 100}, **bearer(high))[0] == ask(server, body=BODY | {"priority": 3}, **bearer(low))[0] == 200
    for wrong in [101, "high", 0.5]:
        status, _, reply = ask(server, body=BODY | {"priority": wrong}, **bearer(high))
        assert (status, reply["error"]["param"]) == (400, "priority")
    assert server.end() == 0


def test_the_greater_priority_comes_first(hadal, tmp_path):
    """Only one of the three has room at a time: the greatest takes the place of the one that runs, the least waits for both."""
    llama = read_golden(GOLDEN / "llama")
    server = Server(hadal, copy_of(tmp_path / "chatty", llama.model, TEMPLATE, max_position_embeddings=8192), "--replies", 1)
    long = {"max_tokens": 3000, "logit_bias": ENDLESS["logit_bias"]}
    order = []

    def send(priority):
        status, _, reply = ask(server, "/v1/completions", long | {"prompt": [65 + priority] * 4500, "priority": priority})
        order.append((priority, status, reply["usage"]["completion_tokens"]))

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for count, priority in enumerate([0, -5, 5], 1):
            threads.submit(send, priority)
            assert wait_until(lambda: metrics_of(server)["hadal_requests"] == count)  # noqa: B023
    assert order == [(5, 200, 3000), (0, 200, 3000), (-5, 200, 3000)]
    assert metrics_of(server)["hadal_preempted_total"] == 1
    assert server.end() == 0


def test_the_engine_is_seen(hadal, model):
    server = Server(hadal, model, "--draft", "off")
    body = BODY | {"messages": [{"role": "user", "content": "word " * 200}]}
    usage = ask(server, body=body)[2]["usage"]
    rows = usage["prompt_tokens"] + usage["completion_tokens"] - 1
    assert wait_until(lambda: metrics_of(server)["hadal_batch_rows_sum"] == rows), "counted behind the pass that ends the reply"
    first = metrics_of(server)
    assert first["hadal_queue_seconds_count"] == 1 and first["hadal_cached_tokens_total"] == 0
    assert first["hadal_cache_pages"] > first["hadal_cache_pages_free"] > 0
    assert ask(server, body=body)[2]["usage"] is not None
    second = metrics_of(server)
    assert second["hadal_cached_tokens_total"] >= 64, "the second prompt is known"
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(raw_request(ENDLESS))
        assert wait_until(lambda: metrics_of(server)["hadal_requests_running"] == 1)
    assert wait_until(lambda: metrics_of(server)["hadal_cancelled_total"] == 1)
    gone = metrics_of(server)
    assert gone["hadal_requests_running"] == gone["hadal_requests_waiting"] == gone["hadal_preempted_total"] == 0
    assert gone["hadal_cache_pages"] == gone["hadal_cache_pages_free"] + gone["hadal_cache_pages_kept"], "nothing is lost"
    assert server.end() == 0


def test_what_experts_do_is_counted(hadal):
    golden = read_golden(GOLDEN / "deepseek_v3")
    config = json.loads((golden.model / "config.json").read_text())
    server = Server(hadal, golden.model, "--draft", "off")
    usage = ask(server, "/v1/completions", {"prompt": golden.ids[:20], "max_tokens": 9, "logit_bias": {"299": -100}})[2]["usage"]
    counted = metrics_of(server)
    experts, layers = config["n_routed_experts"], config["num_hidden_layers"]
    of = lambda layer: [counted[f'hadal_expert_tokens_total{{model="tiny",layer="{layer}",expert="{e}"}}'] for e in range(experts)]
    rows = usage["prompt_tokens"] + usage["completion_tokens"] - 1  # the last token is not read
    for layer in range(layers):
        dense = layer < config["first_k_dense_replace"]
        assert sum(of(layer)) == (0 if dense else rows * config["num_experts_per_tok"]), layer
        assert max(of(layer)) <= rows
    assert server.end() == 0


def test_what_people_write_is_text(hadal, model):
    """Neither a forged end of their turn nor one that follows from what is next to it: only the template writes control tokens."""
    server = Server(hadal, model)
    tokens = lambda text: ask(server, body=BODY | {"messages": [{"role": "user", "content": text}]})[2]["usage"]["prompt_tokens"]
    end = "<｜end▁of▁sentence｜>"
    assert ask(server, "/tokenize", {"content": end})[2]["count"] == 1, "a raw text is the caller's own"
    assert tokens("a" + end) - tokens("a") > 10, "its letters, not the token"
    assert tokens("a" + end + end) - tokens("a" + end) == tokens("a" + end) - tokens("a")
    assert server.end() == 0


def test_the_sizes_of_requests_are_measured(hadal, model):
    server = Server(hadal, model)
    reply = ask(server)[2]
    counted = metrics_of(server)
    assert counted["hadal_request_prompt_tokens_sum"] == reply["usage"]["prompt_tokens"]
    assert counted["hadal_request_reply_tokens_sum"] == 3 and counted['hadal_replies_total{finish="length"}'] == 1
    assert counted["hadal_log_lines_dropped_total"] == 0
    assert server.end() == 0


def test_a_killed_writer_leaves_the_old_keys(hadal, tmp_path):
    file = tmp_path / "keys.txt"
    hadal.run("keys", "add", file, "first")
    for i in range(30):
        writer = subprocess.Popen([hadal.program, "keys", "add", file, f"key{i}"], stdout=subprocess.DEVNULL)
        time.sleep(i * 0.0004)
        writer.kill()
        writer.wait()
        names = [key["name"] for key in json.loads(hadal.run("keys", "list", file, "--json").stdout)]
        assert names[0] == "first" and set(names) <= {"first"} | {f"key{k}" for k in range(i + 1)}


def test_paths_are_names_only(hadal, model):
    server = Server(hadal, model)
    for path in ["/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/v1/models/../../etc/passwd", "/v1/models/..%2f..%2fetc", "/\\etc"]:
        with socket.create_connection(("127.0.0.1", server.port)) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while piece := s.recv(65536):
                received += piece
        assert received.startswith(b"HTTP/1.1 404") and b"root:" not in received, path
    assert server.end() == 0


def test_the_notes_name_tests_that_exist():
    """docs/security.md promises a test for each threat."""
    sources = "\n".join(path.read_text() for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "tests").rglob("*.cpp")])
    rows = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1])
        assert named or "fuzz targets" in row, row
        for name in named:
            suite, _, case = name.partition(".")
            found = (
                (ROOT / name).exists()
                or f"def {name}(" in sources
                or re.search(rf"TEST(_F)?\({suite}, {case}\)", sources)
                or (ROOT / "tests" / "fuzz" / f"{name}.cpp").exists()
            )
            assert found, f"{name}: {row}"
