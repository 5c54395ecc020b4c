"""The server before real clients: the official openai package, and sockets that do what no client should."""

import atexit
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden, wait_until

openai = pytest.importorskip("openai")

ALWAYS_A, NEVER_END = {"65": 100}, {"299": -100}


class Server:
    def __init__(self, hadal, model, *options, name="tiny", environment=()):
        arguments = [hadal.program, "serve", model, "--port", 0, "--name", name, *options]
        self.process = subprocess.Popen(
            list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ) | dict(environment)
        )
        atexit.register(self.process.kill)  # where a test fails before it ends it
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)
        assert found, f"{line}\n{self.process.stderr.read()}"
        self.port = int(found[1])
        self.base = f"http://127.0.0.1:{self.port}"
        self.client = openai.OpenAI(base_url=f"{self.base}/v1", api_key="none", max_retries=0, timeout=60)

    def call(self, path, body=None, method=None, headers=()):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def chat(self, text="the thing", **options):
        body = {"max_tokens": 8, "temperature": 0} | options
        return self.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": text}], **body)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    return copy_of(tmp_path_factory.mktemp("serve") / "chatty", llama.model, TEMPLATE, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def server(hadal, model):
    server = Server(hadal, model)
    yield server
    assert server.end() == 0


def test_a_reply_is_that_of_generate(hadal, model, server):
    reply = server.chat(max_tokens=24)
    alone = json.loads(hadal.run("generate", model, "-p", "the thing", "--max-tokens", 24, "--temperature", 0, "--json").stdout)
    assert reply.choices[0].message.content == alone["text"]
    assert reply.choices[0].finish_reason == alone["finish"]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (alone["prompt_tokens"], alone["tokens"])
    assert reply.object == "chat.completion" and reply.model == "tiny" and reply.id.startswith("chatcmpl-")


def test_a_stream_is_the_same_in_pieces(server):
    whole = server.chat(max_tokens=40, logprobs=True, top_logprobs=3)
    chunks = list(server.chat(max_tokens=40, logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    streamed = [entry for c in chunks if c.choices and c.choices[0].logprobs for entry in c.choices[0].logprobs.content]
    assert streamed == whole.choices[0].logprobs.content and len(streamed) == whole.usage.completion_tokens
    for entry in streamed:
        assert len(entry.top_logprobs) == 3 and entry.logprob == entry.top_logprobs[0].logprob
    assert len({c.id for c in chunks}) == 1


def test_completions_take_texts_tokens_and_lists(server):
    texts = ["the thing", "HADAL"]
    tokens = [server.call("/tokenize", {"content": text})[1]["tokens"] for text in texts]
    create = lambda prompt, **more: server.client.completions.create(model="tiny", prompt=prompt, max_tokens=9, temperature=0, **more)
    alone = [create(text).choices[0].text for text in texts]
    assert [create(ids).choices[0].text for ids in tokens] == alone
    assert [c.text for c in create(texts).choices] == alone
    assert [c.text for c in create(tokens, n=2).choices] == [alone[0], alone[0], alone[1], alone[1]]
    assert create(texts[0], echo=True).choices[0].text == texts[0] + alone[0]
    listed = create(texts[0], logprobs=2).choices[0].logprobs
    assert len(listed.tokens) == len(listed.token_logprobs) == len(listed.top_logprobs) and all(len(t) <= 2 for t in listed.top_logprobs)
    assert "".join(c.choices[0].text for c in create(texts[0], stream=True)) == alone[0]


def test_sampling_follows_the_seed(server):
    draw = lambda seed: server.chat(temperature=1, max_tokens=20, seed=seed).choices[0].message.content
    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(5)}) > 1
    assert len({c.message.content for c in server.chat(temperature=1, max_tokens=20, seed=7, n=4).choices}) > 1
    unseeded = [server.chat(temperature=1, max_tokens=20).choices[0].message.content for _ in range(4)]
    assert len(set(unseeded)) > 1


def test_stops_and_bias(server):
    reply = server.chat(logit_bias=ALWAYS_A, max_tokens=5).choices[0]
    assert (reply.message.content, reply.finish_reason) == ("AAAAA", "length")
    reply = server.chat(logit_bias=ALWAYS_A, stop="AA").choices[0]
    assert (reply.message.content, reply.finish_reason) == ("", "stop")


def test_reasoning_is_apart(hadal, tmp_path):
    llama = read_golden(GOLDEN / "llama")
    thinking = Server(hadal, copy_of(tmp_path / "thinking", llama.model, TEMPLATE + "<think>\n"))
    reply = thinking.chat(logit_bias=ALWAYS_A, max_tokens=3)
    assert reply.choices[0].message.content == "" and reply.choices[0].message.reasoning_content == "AAA"
    chunks = list(thinking.chat(logit_bias=ALWAYS_A, max_tokens=3, stream=True))
    assert "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks) == "AAA"
    assert thinking.end() == 0


def test_many_together_say_what_they_say_alone(server):
    ask = lambda i: server.chat(f"thing {i}", max_tokens=30 + i % 7, temperature=0.8, seed=i, logprobs=True).choices[0]
    alone = [ask(i) for i in range(24)]
    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        together = list(threads.map(ask, range(24)))
    assert together == alone


@pytest.mark.parametrize(
    ("status", "param", "body"),
    [
        (400, "messages", {}),
        (400, "messages", {"messages": []}),
        (400, "messages[0].role", {"messages": [{"role": "king", "content": "x"}]}),
        (400, "messages[0].content", {"messages": [{"role": "user"}]}),
        (400, "messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        (400, "messages[0].tool_calls[0].function", {"messages": [{"role": "assistant", "tool_calls": [{"function": [None]}]}]}),
        (400, "temperature", {"temperature": 3}),
        (400, "temperature", {"temperature": "warm"}),
        (400, "max_tokens", {"max_tokens": 0}),
        (400, "max_tokens", {"max_tokens": 1.5}),
        (400, "n", {"n": 1000}),
        (400, "stop[0]", {"stop": [1]}),
        (400, "logit_bias", {"logit_bias": {"x": 1}}),
        (400, "top_logprobs", {"top_logprobs": 3}),
        (400, "stream", {"stream": "yes"}),
        (400, "tools[0].type", {"tools": [{"type": "thing"}]}),
        (400, "response_format.type", {"response_format": {"type": "thing"}}),
        (404, "model", {"model": "other"}),
    ],
)
def test_what_is_wrong_is_named(server, status, param, body):
    full = body if "messages" in body or not body else {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2} | body
    found, reply = server.call("/v1/chat/completions", full)
    assert (found, reply["error"]["param"]) == (status, param)
    assert reply["error"]["message"] and reply["error"]["type"] == "invalid_request_error"


def test_other_errors(server):
    assert server.call("/v1/chat/completions", b"{")[0] == 400
    assert server.call("/v1/chat/completions", b"[]")[0] == 400
    assert server.call("/v1/chat/completions", b'{"x":' + b"[" * 1_000_000)[0] == 400
    assert server.call("/v1/chat/completions", method="GET")[0] == 405
    assert server.call("/nowhere")[0] == 404
    status, reply = server.call("/v1/completions", {"prompt": "x " * 5000})
    assert status == 400 and "the prompt is too long" in reply["error"]["message"]
    status, reply = server.call("/v1/completions", {"prompt": [999999]})
    assert status == 400 and "out of range" in reply["error"]["message"]
    status, reply = server.call("/v1/completions", {"prompt": ""})
    assert status == 400 and "the prompt is empty" in reply["error"]["message"]
    with pytest.raises(openai.NotFoundError):
        server.client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
    assert server.chat("x", max_tokens=2).choices, "it still serves"


def test_unknown_fields_and_nulls_are_ignored(server):
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stop": None, "tools": None, "user": "me", "store": True}
    assert server.call("/v1/chat/completions", body)[0] == 200


def test_the_small_routes(server):
    tokens = server.call("/tokenize", {"content": "HADAL 42"})[1]["tokens"]
    assert server.call("/detokenize", {"tokens": tokens}) == (200, {"content": "HADAL 42", "prompt": "HADAL 42"})
    assert server.call("/apply-template", {"messages": [{"role": "user", "content": "x"}]})[1]["prompt"] == "user: x\nassistant:"
    assert [m.id for m in server.client.models.list().data] == ["tiny"]
    assert server.client.models.retrieve("tiny").object == "model"
    assert server.call("/health") == (200, {"status": "ok"})
    assert server.call("/ready")[1]["status"] == "ready"
    assert server.call("/version")[1]["version"]


def metrics_of(server):
    with urllib.request.urlopen(server.base + "/metrics") as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4"
        lines = reply.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_metrics_account_for_everything(server):
    before = metrics_of(server)
    reply = server.chat(max_tokens=7, n=2)
    server.call("/v1/chat/completions", {})
    after = metrics_of(server)
    grown = lambda name: after[name] - before.get(name, 0)
    assert grown("hadal_prompt_tokens_total") == 2 * reply.usage.prompt_tokens
    assert grown("hadal_reply_tokens_total") == grown("hadal_between_tokens_seconds_count") + 2 == reply.usage.completion_tokens
    assert grown("hadal_first_token_seconds_count") == grown("hadal_request_seconds_count") == 2
    assert grown('hadal_http_answers_total{status="400"}') == 1
    assert grown('hadal_http_answers_total{status="200"}') == 2, "the chat and the first look at the metrics"
    assert wait_until(lambda: metrics_of(server)["hadal_requests"] == 0)


def requests_of(server):
    return server.call("/ready")[1]["requests"]


ENDLESS = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4000, "logit_bias": NEVER_END | ALWAYS_A}


def raw_request(body, path="/v1/chat/completions", head=""):
    body = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_noticed(server, stream):
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as s:
            s.sendall(raw_request(ENDLESS | {"stream": stream}))
            assert wait_until(lambda: requests_of(server) == 1)
            if stream:
                s.recv(100)
        assert wait_until(lambda: requests_of(server) == 0)


def test_garbage_slowness_and_excess(server):
    def answer_to(data, pause=0.0):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
            with contextlib.suppress(OSError):
                for at in range(0, len(data), 7 if pause else len(data)):
                    s.sendall(data[at : at + (7 if pause else len(data))])
                    time.sleep(pause)
                s.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(OSError):
                while piece := s.recv(65536):
                    received += piece
            return received

    assert answer_to(b"\x00\xff garbage\r\n\r\n").startswith(b"HTTP/1.1 400")
    # Closed while the client still sends: the answer may be lost on its way.
    assert answer_to(b"GET /health HTTP/1.1\r\nX: " + b"a" * 100000 + b"\r\n\r\n")[:12] in (b"HTTP/1.1 431", b"")
    assert answer_to(b"POST /tokenize HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert answer_to(b"POST /tokenize HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf") == b""
    assert b'"count"' in answer_to(raw_request({"content": "slow"}, "/tokenize", "Connection: close\r\n"), pause=0.01)
    assert server.call("/health")[0] == 200


def test_connections_are_kept_and_1_0_is_answered(server):
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        for _ in range(3):
            s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b'{"status":"ok"}' in s.recv(65536)
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        data = json.dumps({"prompt": "x", "max_tokens": 3, "stream": True, "temperature": 0})
        s.sendall(f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode())
        received = b""
        while piece := s.recv(65536):
            received += piece
        assert received.endswith(b"data: [DONE]\n\n") and b"chunked" not in received


def test_a_crowd_leaves_nothing_behind(hadal, model):
    """Short and long, whole and streamed, wrong ones and clients that leave: all are answered, and memory stays as it is."""
    server = Server(hadal, model, "--stop", "never said")

    def one(i):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
            if i % 4 == 0:
                s.sendall(raw_request(ENDLESS | {"stream": i % 8 == 0}))
                return s.recv(20)[:12] if i % 8 == 0 else b""
            body = {"prompt": "the thing " * (i % 50 + 1), "max_tokens": i % 20 + 1, "stream": i % 4 == 1, "temperature": 4 if i % 4 == 2 else 1}
            s.sendall(raw_request(body, "/v1/completions", "Connection: close\r\n"))
            received = b""
            while piece := s.recv(65536):
                received += piece
            return received

    def resident():
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{server.process.pid}/status").read())[1])

    def crowd():
        with concurrent.futures.ThreadPoolExecutor(32) as threads:
            for i, reply in enumerate(threads.map(one, range(800))):
                expected = {0: b"" if i % 8 else b"HTTP/1.1 200", 1: b"data: [DONE]", 2: b"temperature", 3: b'"usage"'}[i % 4]
                assert expected in reply, f"request {i}: {reply[-300:]}"
        assert wait_until(lambda: requests_of(server) == 0)

    crowd()
    before = resident()
    crowd()
    crowd()
    assert resident() < before * 1.05 + 2000
    counted = metrics_of(server)
    assert counted['hadal_http_answers_total{status="400"}'] == 3 * 200
    assert 0 < counted['hadal_http_answers_total{status="499"}'] <= 3 * 200  # a reply may end before its client leaves
    assert 3 * 500 <= counted["hadal_request_seconds_count"] <= 3 * 600, "who leaves at once may not have been read"
    assert server.end() == 0


def test_too_many_are_told_to_come_back(hadal, model):
    server = Server(hadal, model, "--most-requests", 2)
    streams = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    for s in streams:
        s.sendall(raw_request(ENDLESS))
    assert wait_until(lambda: requests_of(server) == 2)
    with pytest.raises(openai.RateLimitError) as refused:
        server.chat("x")
    assert refused.value.response.headers["retry-after"] == "1"
    for s in streams:
        s.close()
    assert wait_until(lambda: requests_of(server) == 0)
    assert server.chat("x", max_tokens=2).choices
    assert server.end() == 0


def test_a_key_is_asked_for(hadal, model):
    server = Server(hadal, model, environment={"HADAL_API_KEY": "secret"})
    with pytest.raises(openai.AuthenticationError):
        server.chat("x")
    server.client = server.client.with_options(api_key="secret")
    assert server.chat("x", max_tokens=2).choices
    assert server.call("/health")[0] == 200, "who looks after the server needs no key"
    assert server.end(signal.SIGINT) == 0


def test_a_running_reply_is_finished_first(hadal, model):
    server = Server(hadal, model)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        s.sendall(raw_request(ENDLESS | {"max_tokens": 400, "stream": True}))
        received = s.recv(10)
        server.process.send_signal(signal.SIGTERM)
        while piece := s.recv(65536):
            received += piece
    assert b"data: [DONE]\n\n" in received and received.count(b'"A"') > 100
    assert server.process.wait(timeout=60) == 0
    assert "Shutting down" in server.process.stderr.read()


def test_a_drain_has_an_end(hadal, model):
    server = Server(hadal, model, "--drain", 0)
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(raw_request(ENDLESS | {"stream": True}))
        s.recv(10)
        assert server.end() == 0


def test_a_taken_address_is_told(hadal, model, server):
    done = hadal.run("serve", model, "--port", server.port, expect=1)
    assert "cannot listen at 127.0.0.1" in done.stderr and "in use" in done.stderr
