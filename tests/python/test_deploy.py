"""deploy/: two servers behind a balancer, one of them killed, one drained; and the files for Kubernetes, systemd and containers."""

import atexit
import concurrent.futures
import ctypes
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
import yaml
from conftest import GOLDEN, ROOT, TEMPLATE, copy_of, read_golden, wait_until

DEPLOY = ROOT / "deploy"
ENDLESS = {"prompt": "x", "temperature": 0, "logit_bias": {"65": 100, "299": -100}, "stream": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return copy_of(
        tmp_path_factory.mktemp("deploy") / "chatty", read_golden(GOLDEN / "llama").model, TEMPLATE, max_position_embeddings=65536
    )


def start(*arguments, **options):
    process = subprocess.Popen(list(map(str, arguments)), text=True, **options)
    atexit.register(process.kill)
    return process


class Replica:
    def __init__(self, hadal, model, port=0):
        self.process = start(
            hadal.program, "serve", model, "--port", port, "--name", "tiny", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        line = self.process.stdout.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)[1])

    def requests_seen(self):
        text = request(self.port, "GET", "/metrics")[1]
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("hadal_first_token_seconds_count"))


def request(port, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, dict(headers))
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port, path):
    try:
        return request(port, "GET", path)[0] == 200
    except OSError:
        return False


def with_addresses(name, replicas, port):
    """The file as it is, but for the ports."""
    text = (DEPLOY / name).read_text()
    for before, after in ((8000, port), (8081, replicas[0].port), (8082, replicas[1].port)):
        assert text.count(f"127.0.0.1:{before}") == 1
        text = text.replace(f"127.0.0.1:{before}", f"127.0.0.1:{after}")
    return text


def start_balancer(kind, replicas, folder):
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind}")
    port = free_port()
    file = folder / f"{kind}.conf"
    file.write_text(with_addresses({"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[kind], replicas, port))
    if kind == "haproxy":
        assert subprocess.run(["haproxy", "-c", "-f", file], capture_output=True).returncode == 0
        process = start("haproxy", "-db", "-f", file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    else:
        process = start("nginx", "-p", folder, "-c", file, "-g", "daemon off;", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: answers(port, "/ready"))
    return process, port


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_two_servers_one_killed_one_drained(hadal, model, tmp_path, kind):
    replicas = [Replica(hadal, model), Replica(hadal, model)]
    balancer, port = start_balancer(kind, replicas, tmp_path)

    def ask(i, **more):
        body = {"prompt": f"the thing {i}", "max_tokens": 4, "temperature": 0}
        return request(port, "POST", "/v1/completions", body | more, {"Cookie": f"hadal_session=s{i}"})

    def crowd(count, first=0):
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            return [status for status, _ in threads.map(ask, range(first, first + count))]

    # One session, one server; many sessions, both.
    before = [r.requests_seen() for r in replicas]
    for _ in range(6):
        assert ask(0)[0] == 200
    grown = sorted(r.requests_seen() - b for r, b in zip(replicas, before))
    assert grown == [0, 6], "a session stays where its prefix is"
    assert crowd(40) == [200] * 40
    assert all(r.requests_seen() > b for r, b in zip(replicas, before))

    # A stream reaches its reader through the balancer piece by piece; the server it comes from is killed in the middle.
    stream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    seen = [r.requests_seen() for r in replicas]
    stream.request("POST", "/v1/completions", json.dumps(ENDLESS | {"max_tokens": 60000}), {"Cookie": "hadal_session=s0"})
    reply = stream.getresponse()
    assert reply.readline().startswith(b"data: ")
    victim = next(i for i, r in enumerate(replicas) if r.requests_seen() > seen[i])
    replicas[victim].process.send_signal(signal.SIGKILL)
    replicas[victim].process.wait()
    assert crowd(40, 100) == [200] * 40, "requests go on, from the first one on"
    rest = b""
    try:
        rest = reply.read()
    except (http.client.IncompleteRead, ConnectionError):
        pass
    assert b"[DONE]" not in rest, "what had begun to be answered ends, and its reader can see that it is not whole"
    assert ask(0)[0] == 200, "its session has moved"

    # It comes back, and the other one is told to go while it answers: that answer is finished.
    replicas[victim] = Replica(hadal, model, replicas[victim].port)
    assert wait_until(lambda: crowd(8, 200) == [200] * 8 and replicas[victim].requests_seen() > 0)
    time.sleep(1.5)  # three checks: what failed while it was away is behind the balancer
    assert crowd(8, 200) == [200] * 8
    leaving = replicas[1 - victim]
    seen = leaving.requests_seen()

    def stream_on(session):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps(ENDLESS | {"max_tokens": 2000}), {"Cookie": f"hadal_session={session}"})
        answer = connection.getresponse()
        answer.readline()
        return answer

    for i in range(100):
        running = stream_on(f"t{i}")
        if leaving.requests_seen() > seen:
            break
        running.close()
    leaving.process.send_signal(signal.SIGTERM)
    assert crowd(40, 300) == [200] * 40
    assert running.read().endswith(b"data: [DONE]\n\n")
    assert leaving.process.wait(timeout=60) == 0
    balancer.send_signal(signal.SIGTERM)
    balancer.wait(timeout=60)


def test_haproxy_tells_when_nobody_is_left(hadal, model, tmp_path):
    replicas = [Replica(hadal, model), Replica(hadal, model)]
    balancer, port = start_balancer("haproxy", replicas, tmp_path)
    assert request(port, "GET", "/balancer")[0] == 200
    for replica in replicas:
        replica.process.kill()
    assert wait_until(lambda: request(port, "GET", "/balancer")[0] == 503)
    balancer.terminate()


def test_kubernetes():
    documents = {d["kind"]: d for d in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    assert set(documents) == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    deployment, service = documents["Deployment"]["spec"], documents["Service"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    arguments = container["args"]
    option = lambda name: arguments[arguments.index(name) + 1]
    assert arguments[0] == "serve" and option("--host") == "0.0.0.0" and int(option("--port")) == port["containerPort"]
    for probe, path in (("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}, probe
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > wait + int(option("--drain"))
    assert wait > container["readinessProbe"]["periodSeconds"], "no proxy sends anything any more when SIGTERM comes"
    assert service["ports"][0]["targetPort"] == port["name"]
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"]) and annotations["prometheus.io/path"] == "/metrics"
    labels = deployment["template"]["metadata"]["labels"]
    assert (
        labels
        == deployment["selector"]["matchLabels"]
        == service["selector"]
        == documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    )
    scaler = documents["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": documents["Deployment"]["metadata"]["name"]}
    assert deployment["replicas"] >= scaler["minReplicas"] >= 2 > documents["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    metrics = (ROOT / "src" / "serve" / "metrics.cpp").read_text()
    assert f'"{scaler["metrics"][0]["pods"]["metric"]["name"]}"' in metrics, "a metric that the server has"
    user = re.search(r"^USER (\d+)", (DEPLOY / "Containerfile").read_text(), re.M)[1]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == int(user) > 0
    assert container["securityContext"]["readOnlyRootFilesystem"] and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def service_values():
    lines = [line for line in (DEPLOY / "hadal.service").read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_systemd_unit(hadal, tmp_path):
    values = service_values()
    drain = int(re.search(r"--drain (\d+)", values["ExecStart"])[1])
    assert int(values["TimeoutStopSec"]) > drain
    for key, value in {
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "Restart": "on-failure",
        "MemoryDenyWriteExecute": "yes",
    }.items():
        assert values[key] == value, key
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / "hadal.service"
    unit.write_text((DEPLOY / "hadal.service").read_text().replace("/usr/local/bin/hadal", str(hadal.program)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "hadal.service" in line]
    assert complaints == [], complaints


def test_no_memory_is_both_written_and_run(hadal, model):
    """What MemoryDenyWriteExecute= forbids is not needed: the regular expressions of tokenizers are interpreted then."""
    text = "The quick brown fox, 1234 times: naïve 你好!"
    free = hadal.run("tokenize", model, "-p", text).stdout

    def deny():
        ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN; an older kernel says no

    done = subprocess.run([hadal.program, "tokenize", model, "-p", text], capture_output=True, text=True, preexec_fn=deny)
    assert done.returncode == 0 and done.stdout == free


def test_containerfile(hadal):
    """Read, not built: that takes a container engine and its registry. What its steps call on is here, and runs in other tests."""
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["debian:12-slim"] * 2
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    for script in re.findall(r"script/\w+", text):
        assert (ROOT / script).exists() or script == "script/", script
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.M) and last.index("USER ") < last.index("ENTRYPOINT ")
    built = re.search(r"COPY --from=build /src/(\S+) /usr/local/bin/hadal", text)[1]
    assert built == "build/release/hadal" and re.search(r"^RUN script/build release hadal", text, re.M)
    for variable in re.findall(r"^ENV (\w+)=", text, re.M):
        assert variable in (ROOT / "src" / "model" / "model_names.cpp").read_text()
    pipeline = re.search(r"^RUN (ldd .+) >", text, re.M)[1].replace("build/release/hadal", str(hadal.program))
    if shutil.which("dpkg"):
        packages = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True).stdout.split()
        assert {"libfmt9", "libssl3", "libpcre2-8-0", "liburing2"} <= set(packages)
