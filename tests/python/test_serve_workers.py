"""Calls that take long to read leave the server's thread free: it answers others and passes on what runs, and such calls are bounded too."""

import json
import select
import socket
import time

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden, wait_until
from test_serve import ENDLESS, Server, metrics_of, raw_request, requests_of


def long_call(words):
    body = json.dumps({"content": "some " * words}).encode()
    return f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


LONG = long_call(1_500_000)  # seconds of work


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    return copy_of(tmp_path_factory.mktemp("workers") / "chatty", llama.model, TEMPLATE, max_position_embeddings=65536)


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def send(server, request):
    s = connect(server)
    s.sendall(request)
    return s


def is_answered(s):
    return bool(select.select([s], [], [], 0)[0])


def head_of(s):
    head = s.recv(2000)
    while s.recv(1 << 20):
        pass
    s.close()
    return head


def test_others_are_answered_meanwhile(hadal, model):
    server = Server(hadal, model)
    with connect(server) as stream:
        stream.sendall(raw_request(ENDLESS | {"stream": True, "max_tokens": 60000}))
        assert stream.recv(4096).startswith(b"HTTP/1.1 200")
        slow = [send(server, LONG), send(server, LONG)]  # as many as there are workers
        for _ in range(3):
            assert server.call("/health")[0] == 200
            assert server.call("/v1/models")[0] == 200
            for _ in range(3):
                assert stream.recv(4096), "the reply goes on"
        assert not is_answered(slow[1]), "it is still being read"
        for s in slow:
            assert head_of(s).startswith(b"HTTP/1.1 200")
    assert server.end() == 0


def test_who_leaves_before_its_turn_costs_nothing(hadal, model):
    server = Server(hadal, model)
    slow = [send(server, LONG) for _ in range(4)]
    time.sleep(0.5)  # they have arrived
    fifth = connect(server)
    fifth.sendall(raw_request(ENDLESS))
    assert server.call("/health")[0] == 200
    fifth.close()
    for s in slow:
        assert head_of(s).startswith(b"HTTP/1.1 200")
    assert wait_until(lambda: metrics_of(server).get('hadal_http_answers_total{status="499"}', 0) == 1)
    assert metrics_of(server)["hadal_prompt_tokens_total"] == 0 and requests_of(server) == 0
    assert server.end() == 0


def test_not_too_many_wait(hadal, model):
    server = Server(hadal, model, "--most-requests", 2)
    heads = [head_of(s) for s in [send(server, LONG) for _ in range(6)]]
    assert {head[:12] for head in heads} == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
    assert all(b"Retry-After: 1" in head for head in heads if b" 429 " in head)
    assert server.call("/tokenize", {"content": "x"})[0] == 200
    assert server.end() == 0
