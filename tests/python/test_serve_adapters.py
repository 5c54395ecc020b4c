"""Adapters and several models in one server: chosen by name, batched together, swapped while replies run."""

import concurrent.futures
import json
import shutil
import threading

import adapters
import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden
from test_serve import NEVER_END, Server

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    return copy_of(tmp_path_factory.mktemp("adapters") / "chatty", llama.model, TEMPLATE, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, model):
    """A folder of adapters that differ: one, two, three."""
    folder = tmp_path_factory.mktemp("shelf")
    layers = adapters.linear_layers(adapters.shapes_of(model))
    for seed, name in enumerate(("one", "two", "three")):
        adapters.write(folder / name, adapters.draw(layers, seed + 1, rank=2 + seed))
    return folder


@pytest.fixture(scope="module")
def server(hadal, model, shelf):
    server = Server(hadal, model, "--adapter", f"first={shelf / 'one'}", "--adapter", f"second={shelf / 'two'}", "--adapter-folder", shelf)
    yield server
    assert server.end() == 0


def say(server, name, text="the thing", **options):
    body = {"max_tokens": 24, "temperature": 0, "logit_bias": NEVER_END} | options
    return server.client.chat.completions.create(model=name, messages=[{"role": "user", "content": text}], **body)


def text_of(server, name, *more, **options):
    return say(server, name, *more, **options).choices[0].message.content


def change(server, what, name, path=None, headers=()):
    """A call whose answer is no JSON where it went well."""
    import urllib.error
    import urllib.request

    body = {"lora_name": name} | ({"lora_path": str(path)} if path else {})
    request = urllib.request.Request(f"{server.base}/v1/{what}_lora_adapter", json.dumps(body).encode(), dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["message"]


def test_each_name_has_its_replies(hadal, model, shelf, server):
    def alone(*options):
        done = hadal.run("generate", model, "-p", "the thing", "--max-tokens", 24, "--temperature", 0, "--logit-bias", "299=-100", "--json", *options)
        return json.loads(done.stdout)["text"]

    expected = {"tiny": alone(), "first": alone("--adapter", shelf / "one"), "second": alone("--adapter", shelf / "two")}
    assert len(set(expected.values())) == 3
    for name, text in expected.items():
        reply = say(server, name)
        assert (reply.model, reply.choices[0].message.content) == (name, text)
    names = [*expected] * 8
    with concurrent.futures.ThreadPoolExecutor(24) as crowd:  # in one batch
        assert list(crowd.map(lambda name: text_of(server, name), names)) == [expected[name] for name in names]


def test_they_are_listed(server):
    listed = {entry.id: entry for entry in server.client.models.list()}
    assert set(listed) == {"tiny", "first", "second"}
    assert listed["first"].parent == "tiny" and not hasattr(listed["tiny"], "parent")
    assert server.client.models.retrieve("second").parent == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is no model 'fourth' here"):
        server.client.models.retrieve("fourth")
    with pytest.raises(openai.NotFoundError, match="there is no 'fourth' here, only 'tiny', 'first', 'second'"):
        say(server, "fourth")


def test_they_come_and_go(server, shelf):
    assert change(server, "load", "late", "three") == (200, "Success: LoRA adapter 'late' added successfully.")
    late = text_of(server, "late")
    assert late not in {text_of(server, name) for name in ("tiny", "first", "second")}
    assert change(server, "load", "late", shelf / "one")[0] == 200, "an absolute path within the folder; the next version"
    assert text_of(server, "late") == text_of(server, "first") != late
    assert change(server, "unload", "late") == (200, "Success: LoRA adapter 'late' removed successfully.")
    with pytest.raises(openai.NotFoundError):
        say(server, "late")
    assert change(server, "unload", "late") == (404, "lora_name: there is no adapter 'late' here")


def test_what_cannot_be_loaded(server, shelf, tmp_path):
    kept = text_of(server, "first")
    shutil.copytree(shelf / "one", tmp_path / "one")
    (shelf / "link").symlink_to(tmp_path / "one")
    for path in ("../" + tmp_path.name, tmp_path / "one", "link", "nowhere", "one/../../.."):
        assert "is no folder within the one that adapters may be loaded from" in change(server, "load", "first", path)[1]
    shutil.copytree(shelf / "one", shelf / "broken")
    (shelf / "broken" / "adapter_model.safetensors").write_bytes(b"no tensors")
    assert change(server, "load", "first", "broken")[0] == 400
    (shelf / "broken" / "adapter_config.json").write_text('{"use_dora": true}')
    assert "DoRA is not supported" in change(server, "load", "first", "broken")[1]
    assert change(server, "load", "tiny", "one") == (400, "lora_name: 'tiny' is a model itself, or an adapter of another")
    assert change(server, "load", "first") == (400, "lora_path: expected a folder, found nothing")
    assert change(server, "load", "", "one")[0] == 400
    assert text_of(server, "first") == kept, "what could not be loaded has replaced nothing"


def test_only_where_it_is_allowed(hadal, model, shelf, tmp_path):
    server = Server(hadal, model, "--adapter", f"first={shelf / 'one'}")
    assert change(server, "load", "late", "three")[0] == 403 and change(server, "unload", "first")[0] == 403
    assert server.end() == 0
    keys = tmp_path / "keys"
    secret = lambda name, *more: hadal.run("keys", "add", keys, name, *more).stdout.split()[-1]
    user, admin = secret("user"), secret("admin", "--admin")
    server = Server(hadal, model, "--adapter-folder", shelf, "--keys", keys)
    status, message = change(server, "load", "late", "three", {"Authorization": f"Bearer {user}"})
    assert status == 403 and "may not change the server" in message
    assert change(server, "load", "late", "three")[0] == 401
    assert change(server, "load", "late", "three", {"Authorization": f"Bearer {admin}"})[0] == 200
    assert server.end() == 0


def test_a_running_reply_keeps_its_version(server):
    change(server, "load", "moving", "one")
    expected = text_of(server, "moving", max_tokens=1500)
    stream = say(server, "moving", max_tokens=1500, stream=True)
    pieces = [next(stream).choices[0].delta.content or "" for _ in range(5)]
    assert change(server, "load", "moving", "two")[0] == 200
    assert text_of(server, "moving", max_tokens=24) == text_of(server, "second", max_tokens=24), "new requests have the new one"
    change(server, "unload", "moving")
    pieces += [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == expected


def test_a_thousand_swaps_under_load(server):
    versions = ("one", "two")
    change(server, "load", "busy", versions[0])
    texts = ["the thing", "HADAL", "x"]
    allowed = {text: {text_of(server, name, text, max_tokens=12) for name in ("first", "second")} for text in texts}
    assert all(len(both) == 2 for both in allowed.values())
    over, failures, seen = threading.Event(), [], {text: [] for text in texts}

    def ask(i):
        while not over.is_set():
            text = texts[i % len(texts)]
            try:
                seen[text].append(text_of(server, "busy", text, max_tokens=12))
            except openai.OpenAIError as error:
                failures.append(repr(error))

    crowd = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in crowd:
        thread.start()
    for swap in range(1000):
        assert change(server, "load", "busy", versions[swap % 2])[0] == 200
    over.set()
    for thread in crowd:
        thread.join()
    assert not failures
    for text in texts:
        assert seen[text] and set(seen[text]) <= allowed[text], text
    assert set().union(*map(set, seen.values())) == set().union(*allowed.values()), "both versions have answered"


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    lite = read_golden(GOLDEN / "deepseek_v2_lite")
    return copy_of(tmp_path_factory.mktemp("other") / "lite", lite.model, TEMPLATE, max_position_embeddings=2048)


@pytest.fixture(scope="module")
def pair_of_models(hadal, model, other_model, shelf):
    layers = adapters.linear_layers(adapters.shapes_of(other_model))
    adapters.write(shelf / "lite_one", adapters.draw(layers, 1))
    adapters.write(shelf / "lite_two", adapters.draw(layers, 2))
    server = Server(hadal, model, "--also", f"lite={other_model}", "--adapter", f"first={shelf / 'one'}", "--adapter", f"fine@lite={shelf / 'lite_one'}",
                    "--adapter-folder", shelf)  # fmt: skip
    yield server
    assert server.end() == 0


def test_two_models_answer_under_their_names(hadal, model, other_model, shelf, pair_of_models):
    server = pair_of_models

    def alone(*arguments):
        done = hadal.run("generate", *arguments, "-p", "the thing", "--max-tokens", 24, "--temperature", 0, "--logit-bias", "299=-100", "--json")
        return json.loads(done.stdout)["text"]

    expected = {"tiny": alone(model), "first": alone(model, "--adapter", shelf / "one"), "lite": alone(other_model),
                "fine": alone(other_model, "--adapter", shelf / "lite_one")}  # fmt: skip
    assert len(set(expected.values())) == 4
    names = [*expected] * 8
    with concurrent.futures.ThreadPoolExecutor(16) as crowd:
        assert list(crowd.map(lambda name: text_of(server, name), names)) == [expected[name] for name in names]
    assert server.call("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1})[1]["model"] == "tiny", "the first"


def test_two_models_are_listed(pair_of_models):
    listed = {entry.id: (entry.max_model_len, getattr(entry, "parent", None)) for entry in pair_of_models.client.models.list()}
    assert listed == {"tiny": (4096, None), "first": (4096, "tiny"), "lite": (2048, None), "fine": (2048, "lite")}
    with pytest.raises(openai.NotFoundError, match="there is no 'absent' here, only 'tiny', 'first', 'lite', 'fine'"):
        say(pair_of_models, "absent")
    assert [card["name"] for card in pair_of_models.call("/v1/model_cards")[1]["data"]] == ["tiny", "lite"]
    status, error = pair_of_models.call("/v1/chat/completions", {"model": 5, "messages": [{"role": "user", "content": "x"}]})
    assert status == 400 and error["error"]["param"] == "model"


def test_adapters_go_to_their_model(pair_of_models):
    server = pair_of_models
    before = text_of(server, "fine")
    assert change(server, "load", "fine", "lite_two")[0] == 200, "its name says whose it is"
    assert text_of(server, "fine") != before
    assert change(server, "load", "first", "lite_one")[0] == 400, "of the other model"
    assert change(server, "load", "lite", "one")[0] == 400
    assert server.call("/v1/load_lora_adapter", {"lora_name": "more", "lora_path": "lite_one", "base_model_name": "tiny"})[0] == 400
    request = {"lora_name": "first", "lora_path": "lite_one", "base_model_name": "lite"}
    assert "an adapter of another" in server.call("/v1/load_lora_adapter", request)[1]["error"]["message"]
    assert change(server, "unload", "fine")[0] == 200
    assert {entry.id for entry in server.client.models.list()} == {"tiny", "first", "lite"}


def test_names_must_differ(hadal, model, shelf):
    for options in (["--also", f"tiny={model}"], ["--adapter", f"tiny={shelf / 'one'}"], ["--also", f"b={model}", "--adapter", f"b={shelf / 'one'}"]):
        done = hadal.run("serve", model, "--port", 0, "--name", "tiny", *options, expect=1)
        assert "two models or adapters are called" in done.stderr
    assert "expected NAME=MODEL" in hadal.run("serve", model, "--port", 0, "--also", "x", expect=1).stderr
    assert "there is no model y" in hadal.run("serve", model, "--port", 0, "--adapter", f"a@y={shelf / 'one'}", expect=1).stderr
