"""hadal.ray: two replicas on this machine, one killed, all drained. Skipped where Ray is not installed (requirements-ray.txt)."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import sys
import time

import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden

ray = pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
pytestmark = pytest.mark.filterwarnings("ignore")
ENDLESS = {"logit_bias": {"65": 100, "299": -100}, "temperature": 0}


def request(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.headers.get("X-Hadal-Replica"), reply.read().decode()
    finally:
        connection.close()


def chat(text="the thing", **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0} | more


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return copy_of(tmp_path_factory.mktemp("ray") / "chatty", read_golden(GOLDEN / "llama").model, TEMPLATE, max_position_embeddings=65536)


@pytest.fixture(scope="module")
def port(package, model):
    import socket

    from ray import serve

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    paths = [str(pathlib.Path(package.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # 5 are too few on a busy machine
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    import hadal.ray

    serve.run(hadal.ray.app(str(model), "tiny", cores=1, min_replicas=2, max_replicas=2, drain=60), name="hadal")
    yield port
    serve.shutdown()
    ray.shutdown()


def replicas():
    """Process ids of the replicas, by what they call themselves in X-Hadal-Replica."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"ServeReplica:hadal" in (entry / "cmdline").read_bytes():
                    found[int(entry.name)] = entry
            except OSError:
                pass
    return list(found)


def crowd(port, count):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda i: request(port, "POST", "/v1/chat/completions", chat(f"the thing {i}")), range(count)))


def test_replies_are_those_of_the_package(package, model, port):
    with package.load(model) as alone:
        expected = alone.chat(chat()["messages"], max_tokens=8, temperature=0)
    status, _, text = request(port, "POST", "/v1/chat/completions", chat())
    reply = json.loads(text)
    assert status == 200 and reply["choices"][0]["message"]["content"] == expected.text
    assert reply["usage"] == {
        "prompt_tokens": expected.prompt_tokens,
        "completion_tokens": len(expected.ids),
        "total_tokens": expected.prompt_tokens + len(expected.ids),
    }
    assert reply["choices"][0]["finish_reason"] == expected.finish
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
    stream = client.chat.completions.create(model="tiny", stream=True, stream_options={"include_usage": True}, **chat())
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    assert chunks[-1].usage.completion_tokens == len(expected.ids)
    assert [m.id for m in client.models.list().data] == ["tiny"]


@pytest.mark.parametrize(
    "body, status, message",
    [
        ({"messages": []}, 400, "messages"),
        (chat(model="other"), 404, "there is no 'other' here"),
        (chat(temperature="hot"), 400, "temperature"),
        (chat(n=2), 400, "n: expected 1"),
        (chat(tools=[{}]), 400, "tools: not answered here"),
        (chat(temperature=-1), 400, "temperature"),
        ([], 400, "object"),
    ],
)
def test_mistakes_are_told(port, body, status, message):
    got, _, text = request(port, "POST", "/v1/chat/completions", body)
    assert got == status and message in json.loads(text)["error"]["message"], text


def test_one_of_two_is_killed(port):
    answers = crowd(port, 40)
    assert [status for status, _, _ in answers] == [200] * 40
    assert len({who for _, who, _ in answers}) == 2, "both replicas answer"
    victims = replicas()
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    time.sleep(1)
    assert [status for status, _, _ in crowd(port, 40)] == [200] * 40, "requests go on"
    for _ in range(240):
        if len({who for _, who, _ in crowd(port, 16)}) == 2:
            break
        time.sleep(0.5)
    assert len(replicas()) == 2 and replicas() != victims, "it has been replaced"


def test_a_client_that_leaves_frees_its_replica(port):
    for _ in range(4):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(chat(max_tokens=60000, stream=True, **{k: v for k, v in ENDLESS.items() if k != "temperature"})),
        )
        connection.getresponse().readline()
        connection.close()
    assert [status for status, _, _ in crowd(port, 16)] == [200] * 16


def test_what_runs_is_finished_first(port):
    from ray import serve

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(chat(max_tokens=2000, stream=True, logit_bias=ENDLESS["logit_bias"])))
    reply = connection.getresponse()
    reply.readline()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        gone = threads.submit(serve.delete, "hadal")
        rest = reply.read()
        gone.result()
    assert rest.endswith(b"data: [DONE]\n\n")
