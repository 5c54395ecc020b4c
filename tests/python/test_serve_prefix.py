"""Prompts that begin alike: read once, kept through a restart, and the same bytes in every reply."""

import concurrent.futures
import json
import signal

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from test_serve import Server

BEGINNING = "the thing has a name and the name is of the kind that HADAL likes " * 40


@pytest.fixture(scope="module", params=["llama", "deepseek_v3"])
def model(request, tmp_path_factory):
    golden = read_golden(GOLDEN / request.param)
    return copy_of(tmp_path_factory.mktemp("prefix") / request.param, golden.model, TEMPLATE, max_position_embeddings=4096)


def reply_to(server, question, beginning=BEGINNING):
    """The reply's text and logprobs, as bytes, and how many tokens of the prompt were known."""
    _, reply = server.call(
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": beginning + question}],
            "max_tokens": 12,
            "temperature": 0.8,
            "seed": 3,
            "logprobs": True,
            "top_logprobs": 3,
        },
    )
    return json.dumps(reply["choices"]), reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_the_same_bytes_alone_in_a_crowd_and_from_the_disk(hadal, model, tmp_path):
    options = ("--prefix-folder", tmp_path / "kept")
    server = Server(hadal, model, *options)
    alone, cached = reply_to(server, "one")
    assert cached == 0
    again, cached = reply_to(server, "one")
    assert again == alone and cached > 0 and cached % 256 == 0
    with concurrent.futures.ThreadPoolExecutor(64) as threads:
        crowd = list(threads.map(lambda i: reply_to(server, "one" if i % 8 == 0 else str(i), BEGINNING[i % 3 :]), range(64)))
    assert all(reply == alone for i, (reply, _) in enumerate(crowd) if i % 24 == 0)
    assert server.end() == 0
    restarted = Server(hadal, model, *options)
    assert reply_to(restarted, "one") == (alone, cached)
    restarted.end(signal.SIGKILL)
    survivor = Server(hadal, model, *options)
    assert reply_to(survivor, "one") == (alone, cached)
    assert survivor.end() == 0
    for file in (tmp_path / "kept").iterdir():  # another program has been there
        file.write_bytes(file.read_bytes()[:-100] + b"?" * 100)
    mended = Server(hadal, model, *options)
    assert reply_to(mended, "one") == (alone, 0)
    assert mended.end() == 0


def test_many_replies_in_little_room(hadal, model):
    """More than fit at a time: some give way to others and go on later, with the bytes that they would have had."""
    ask = lambda server, i: server.call(
        "/v1/completions", {"prompt": f"the {i} thing " * 20, "max_tokens": 400, "seed": i, "logprobs": 1, "logit_bias": {"299": -100}}
    )[1]["choices"]
    roomy, tight = Server(hadal, model), Server(hadal, model, "--replies", 1)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        expected = list(threads.map(lambda i: ask(roomy, i), range(16)))
        assert list(threads.map(lambda i: ask(tight, i), range(16))) == expected
    assert roomy.end() == 0 and tight.end() == 0
