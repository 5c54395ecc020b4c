"""Downloads from a small hub on this machine's loopback: what is fetched, resumed, verified and refused."""

import hashlib
import http.server
import json
import os
import pathlib
import re
import ssl
import subprocess
import threading
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(os.environ.get("HADAL_PULL", ROOT / "build" / "release" / "pull_repository"))
COMMIT = "c0ffee" + "0" * 34
TOKEN = "a-token-for-tests"


def blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Repositories in memory. `faults` are functions of (handler, name, content) tried before a file is served; true: they answered."""

    def __init__(self, tls=None):
        self.repositories, self.faults, self.requests, self.gated, self.elsewhere = {}, [], [], False, None
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.port = self.server.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def reply(self, handler, status, body=b"", **headers):
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def answer(self, handler):
        path = urllib.parse.unquote(handler.path.split("?")[0])
        self.requests.append((path, dict(handler.headers)))
        if self.gated and handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(handler, 401, X_Error_Message="Access to this model is restricted")
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self.list(handler, *listing.groups())
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            content = self.repositories.get(file[1], {}).get(file[3])
            if content is None or file[2] != COMMIT:
                return self.reply(handler, 404)
            if any(fault(handler, file[3], content) for fault in list(self.faults)):
                return None
            return self.serve(handler, content)
        if storage := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            return self.serve(handler, self.repositories[storage[1]][storage[2]])
        return self.reply(handler, 404)

    def list(self, handler, repository, revision):
        if repository not in self.repositories or revision not in ("main", "refs/pr/1"):
            return self.reply(handler, 404, X_Error_Message="Repository not found")
        siblings = []
        for name, content in self.repositories[repository].items():
            entry = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
            if name.endswith((".safetensors", ".bin", ".gguf")):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            siblings.append(entry)
        return self.reply(handler, 200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())

    def serve(self, handler, content):
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")):
            start = int(found[1])
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start:])

    def fetched(self):
        return [path.split(f"{COMMIT}/")[1] for path, _ in self.requests if f"/resolve/{COMMIT}/" in path]

    def ranges(self):
        return [headers["Range"] for _, headers in self.requests if "Range" in headers]


def break_off(handler, content, after):
    """Announces everything, sends a part."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:after])
    handler.wfile.flush()
    handler.close_connection = True


WEIGHTS = bytes(range(256)) * 4000 + b"the end"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ bos_token }}",
    "README.md": b"not needed",
    "training_args.bin": b"not needed",
    "onnx/model.safetensors": b"not needed",
    "model.safetensors": WEIGHTS,
}
NEEDED = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"}


@pytest.fixture
def hub():
    hub = Hub()
    hub.repositories["owner/name"] = dict(FILES)
    yield hub
    hub.close()


@pytest.fixture
def pull(tmp_path):
    if not PROGRAM.exists():
        pytest.fail(f"no program to test: {PROGRAM} (script/build makes it)")

    def run(hub, reference="owner/name", *arguments, expect=0, **environment):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "SSL_"))}
        clean |= {"HADAL_CACHE": str(tmp_path)} | environment
        done = subprocess.run([PROGRAM, getattr(hub, "url", hub), reference, *arguments], capture_output=True, text=True, env=clean, timeout=60)
        assert done.returncode == expect, done.stderr[-2000:]
        return done

    run.cache = tmp_path
    return run


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_fetches_what_is_needed_and_only_that(hub, pull):
    done = pull(hub)
    folder = pull.cache / "owner" / "name"
    assert done.stdout.strip() == str(folder)
    assert names(folder) == NEEDED | {".hadal-pull.json"}
    assert all((folder / name).read_bytes() == FILES[name] for name in NEEDED)
    manifest = json.loads((folder / ".hadal-pull.json").read_text())
    assert manifest["commit"] == COMMIT and {file["name"] for file in manifest["files"]} == NEEDED
    total = sum(len(FILES[name]) for name in NEEDED)
    assert done.stderr.splitlines()[-1] == f"model.safetensors {len(WEIGHTS)}/{len(WEIGHTS)} {total}/{total}"


def test_a_second_time_fetches_nothing(hub, pull):
    pull(hub)
    hub.requests.clear()
    pull(hub)
    assert hub.fetched() == []


def test_a_changed_file_is_fetched_again(hub, pull):
    pull(hub)
    hub.requests.clear()
    hub.repositories["owner/name"]["tokenizer.json"] = b'{"a": 2}'  # of the same length
    pull(hub)
    assert hub.fetched() == ["tokenizer.json"]
    assert (pull.cache / "owner/name/tokenizer.json").read_bytes() == b'{"a": 2}'


def test_a_lost_connection_is_taken_up_where_it_broke(hub, pull):
    def fault(handler, name, content):
        if name == "model.safetensors":
            hub.faults.clear()
            break_off(handler, content, 100_000)
            return True
        return False

    hub.faults.append(fault)
    pull(hub)
    assert hub.ranges() == ["bytes=100000-"]
    assert (pull.cache / "owner/name/model.safetensors").read_bytes() == WEIGHTS


def test_many_short_replies_are_no_reason_to_give_up(hub, pull):
    def fault(handler, name, content):
        found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "bytes=0-"))
        start = int(found[1])
        if name != "model.safetensors" or start >= 900_000:
            return False
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start : start + 100_000])
        handler.close_connection = True
        return True

    hub.faults.append(fault)
    pull(hub)
    assert len(hub.ranges()) == 9
    assert (pull.cache / "owner/name/model.safetensors").read_bytes() == WEIGHTS


def test_an_ended_program_goes_on_later(hub, pull):
    hub.faults.append(lambda handler, name, content: name == "model.safetensors" and (break_off(handler, content, 5000) or True))
    assert "error: " in pull(hub, expect=1).stderr
    folder = pull.cache / "owner/name"
    assert not (folder / "model.safetensors").exists() and not (folder / ".hadal-pull.json").exists()
    assert (folder / "model.safetensors.part").stat().st_size == 5000
    hub.faults.clear()
    hub.requests.clear()
    pull(hub)
    assert hub.fetched() == ["model.safetensors"] and hub.ranges() == ["bytes=5000-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS and not (folder / "model.safetensors.part").exists()


def test_a_server_without_ranges_starts_over(hub, pull):
    folder = pull.cache / "owner/name"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(WEIGHTS[:3000])
    hub.faults.append(lambda handler, name, content: handler.headers.get("Range") and (hub.reply(handler, 200, content) or True))
    pull(hub)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("left", [b"x" * 3000, b"x" * len(WEIGHTS), b"x" * (len(WEIGHTS) + 1)])
def test_a_part_of_something_else_is_thrown_away(hub, pull, left):
    folder = pull.cache / "owner/name"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(left)
    pull(hub)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])  # sha256, git blob
def test_wrong_content_is_refused_and_leaves_nothing(hub, pull, name):
    hub.faults.append(lambda handler, file, content: file == name and (hub.reply(handler, 200, content[:-1] + b"?") or True))
    message = pull(hub, expect=1).stderr
    assert f"{name} is not the file that the hub announced: expected " in message
    folder = pull.cache / "owner/name"
    assert not (folder / name).exists() and not (folder / f"{name}.part").exists()


@pytest.mark.parametrize("body, words", [(WEIGHTS + b"more", "found more"), (WEIGHTS[:-1], "reply ended after 1024006 of 1024007 bytes")])
def test_another_length_than_announced(hub, pull, body, words):
    hub.faults.append(lambda handler, name, _: name == "model.safetensors" and (hub.reply(handler, 200, body) or True))
    assert words in pull(hub, expect=1).stderr
    assert not (pull.cache / "owner/name/model.safetensors").exists()


def test_a_busy_server_is_asked_again(hub, pull):
    def fault(handler, name, _):
        if len(busy) == 2:
            return False
        busy.append(name)
        hub.reply(handler, 503)
        return True

    busy = []
    hub.faults.append(fault)
    pull(hub)
    assert len(busy) == 2


def test_a_silent_server_is_given_up(hub, pull):
    hub.faults.append(lambda handler, name, _: name == "config.json" and not threading.Event().wait(3))
    assert "no answer in time" in pull(hub, expect=1).stderr


def test_redirects_relative_and_to_another_host_without_the_token(hub, pull):
    other = Hub()
    other.repositories = hub.repositories
    hub.gated = True

    def fault(handler, name, _):
        place = f"/storage/owner/name/{name}"
        hub.reply(handler, 302, Location=other.url + place if name.endswith(".safetensors") else place)
        return True

    hub.faults.append(fault)
    try:
        pull(hub, HF_TOKEN=TOKEN)
    finally:
        other.close()
    assert (pull.cache / "owner/name/model.safetensors").read_bytes() == WEIGHTS
    assert all(headers.get("Authorization") == f"Bearer {TOKEN}" for _, headers in hub.requests)
    assert len(other.requests) == 1 and "Authorization" not in other.requests[0][1]


def test_redirects_in_a_circle(hub, pull):
    hub.faults.append(lambda handler, *_: hub.reply(handler, 302, Location=handler.path) or True)
    assert "redirects" in pull(hub, expect=1).stderr


def test_refusals_say_what_to_do(hub, pull):
    message = pull(hub, "owner/nothing", expect=1).stderr
    assert "404" in message and "owner/nothing (revision main)" in message and "Repository not found" in message and "check the name" in message
    hub.gated = True
    message = pull(hub, expect=1).stderr
    assert "401" in message and "HF_TOKEN" in message and "restricted" in message
    hub.gated = False
    assert "404" in pull(hub, "owner/name", "no-such-branch", expect=1).stderr
    hub.faults.append(lambda handler, *_: hub.reply(handler, 403) or True)
    assert "ask for access" in pull(hub, expect=1).stderr


def test_a_revision_with_a_slash(hub, pull):
    pull(hub, "owner/name", "refs/pr/1")
    assert json.loads((pull.cache / "owner/name/.hadal-pull.json").read_text())["revision"] == "refs/pr/1"


@pytest.mark.parametrize("reference", ["name", "owner/", "/owner/name", "owner/../name", "owner/name/file.txt", "owner/name/../x.gguf", "a b/c", ""])
def test_names_that_are_none(hub, pull, reference):
    assert "expected owner/name" in pull(hub, reference, expect=1).stderr
    assert hub.requests == []


@pytest.mark.parametrize("name", ["../../evil.json", "/etc/evil.json", "a/../../evil.json", "..", "a\\b.json", "", "a\nb.json"])
def test_file_names_that_lead_elsewhere(hub, pull, name):
    hub.repositories["owner/name"][name] = b"evil"
    assert "stay in their folder" in pull(hub, expect=1).stderr
    assert not list(pull.cache.rglob("*evil*"))


def test_shards_of_the_index_only(hub, pull):
    files = hub.repositories["owner/name"]
    files |= {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    files["model.safetensors.index.json"] = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}}
    ).encode()
    pull(hub)
    found = names(pull.cache / "owner/name")
    assert "model.safetensors" not in found and "model-00002-of-00002.safetensors" in found and "model.safetensors.index.json" in found


def test_bin_where_there_is_nothing_better_and_a_stale_index(hub, pull):
    files = hub.repositories["owner/name"]
    del files["model.safetensors"]
    files |= {"pytorch_model.bin": b"weights", "pytorch_model.bin.index.json": b'{"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}'}
    pull(hub)
    found = names(pull.cache / "owner/name")
    assert "pytorch_model.bin" in found and "pytorch_model.bin.index.json" not in found and "training_args.bin" not in found


def test_one_gguf_file(hub, pull):
    files = hub.repositories["owner/name"] = {"a.Q4.gguf": b"four", "b.Q8.gguf": b"eight", "deep/c.gguf": b"deep"}
    message = pull(hub, expect=1).stderr
    assert "hadal pull owner/name/a.Q4.gguf" in message and "b.Q8.gguf" in message
    done = pull(hub, "owner/name/b.Q8.gguf")
    path = pull.cache / "owner/name/b.Q8.gguf"
    assert done.stdout.strip() == str(path) and path.read_bytes() == files["b.Q8.gguf"]
    pull(hub, "owner/name/deep/c.gguf")
    assert (pull.cache / "owner/name/deep/c.gguf").read_bytes() == b"deep"
    assert "no file d.gguf" in pull(hub, "owner/name/d.gguf", expect=1).stderr


def test_repositories_that_hold_no_model(hub, pull):
    hub.repositories["owner/name"] = {"README.md": b"x"}
    assert "holds no weights" in pull(hub, expect=1).stderr
    hub.repositories["owner/name"] = {"model.safetensors": b"x"}
    assert "config.json" in pull(hub, expect=1).stderr


def test_a_known_name(hub, pull):
    hub.repositories["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"] = dict(FILES)
    done = pull(hub, "r1-distill-qwen-1.5b")
    assert done.stdout.strip() == str(pull.cache / "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"siblings": 3}', b'{"siblings": [3]}', b"<html>", b'{"siblings": [{"rfilename": 7}]}', b"[" * 100_000])
def test_a_listing_that_is_none(hub, pull, body):
    hub.list = lambda handler, *_: hub.reply(handler, 200, body)
    assert "error: http://127.0.0.1" in pull(hub, expect=1).stderr


@pytest.mark.parametrize("endpoint", ["ftp://x", "localhost", "http://", "http://user@127.0.0.1", "http://127.0.0.1:0", "http://a b"])
def test_endpoints_that_are_none(pull, endpoint):
    assert "expected a" in pull(endpoint, expect=1).stderr


def test_nobody_listens(hub, pull):
    port = hub.port
    hub.close()
    assert "connecting" in pull(f"http://127.0.0.1:{port}", expect=1).stderr


def test_two_at_once_do_not_mix(hub, pull):
    import fcntl

    folder = pull.cache / "owner/name"
    folder.mkdir(parents=True)
    with open(folder / "config.json.part", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process" in pull(hub, expect=1).stderr


def test_an_unwritable_cache(hub, pull):
    (pull.cache / "owner").write_text("a file where a folder should be")
    assert "cannot create the folder" in pull(hub, expect=1).stderr


def certificate(folder, name):
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={name}"]
        + ["-keyout", key, "-out", pem],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return pem, key


def test_certificates_are_verified(pull, tmp_path):
    good, other = certificate(tmp_path, "IP:127.0.0.1"), certificate(tmp_path, "DNS:elsewhere.example")
    for tls, trusted, accepted in ((good, good, True), (good, other, False), (other, other, False)):
        hub = Hub(tls)
        hub.repositories["owner/name"] = dict(FILES)
        try:
            done = pull(hub, expect=0 if accepted else 1, SSL_CERT_FILE=str(trusted[0]))
        finally:
            hub.close()
        assert accepted or "TLS" in done.stderr
        assert bool(hub.fetched()) == accepted
