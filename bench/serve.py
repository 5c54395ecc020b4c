#!/usr/bin/env python3
"""How a server answers many clients: hadal's own, and llama.cpp's beside it on the same file with the same prompts.

  script/build && bench/serve.py                        the default model
  bench/serve.py --peer "$(bench/peers/llama-server)"   both, in turn, and the ratio
  bench/serve.py --model FILE -- --weights w4           options of hadal serve
  bench/serve.py --figures prefix,stall                 some figures
  bench/serve.py --out bench/results/serve              adds this model to the record and its table

throughput  1, 8 and 32 clients, each with completions of 64 tokens one after another, of prompts of its own: tokens per second; of the
            peer the better of one cache that all slots share and one for each
prefix      32 clients at once whose prompts begin with the same 2,000 tokens, and 32 that share nothing: median time to the first token
stall       a reply is read while a prompt of 8,000 tokens (or what the context holds) arrives: median and 99th percentile between tokens
Tokens are those that the servers count.
"""

import argparse
import concurrent.futures
import datetime
import json
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

from targets import ROOT, commit


def post(url, path, body, timeout=900):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=timeout)


def completion(prompt, tokens, **more):
    return {"model": "default", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True} | more


def ask(url, prompt, tokens):
    with post(url, "/v1/completions", completion(prompt, tokens)) as reply:
        return json.loads(reply.read())["usage"]["completion_tokens"]


def token_times(url, prompt, tokens, **more):
    """When each token of a stream comes, in seconds since it was asked for."""
    start, times = time.perf_counter(), []
    with post(url, "/v1/completions", completion(prompt, tokens, stream=True, logprobs=0, **more)) as reply:
        for line in reply:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                times.append(time.perf_counter() - start)
    return times


def throughput(url, clients, requests=3, tokens=64):
    prompts = [f"Item {i} of a long list. Once upon a time in a town with {i + 3} bridges, there lived" for i in range(clients * requests)]
    ask(url, "warm up", 4)
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        given = sum(threads.map(lambda p: ask(url, p, tokens), prompts))
    return given / (time.perf_counter() - start)


def words(count, seed):
    """About so many tokens of text that repeats nothing."""
    return " ".join(["river", "stone", "seven", "under", "light", "paper", "north", "glass"][(seed * 7 + i * i + i // 3) % 8] for i in range(count))


def prefix(url, clients=32, length=2000):
    shared = words(length, 1)
    ask(url, shared + " end", 2)
    first = lambda prompt: token_times(url, prompt, 2)[0]
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        hit = list(threads.map(first, [f"{shared} and then {i}" for i in range(clients)]))
        miss = list(threads.map(first, [f"{i} {words(length, i + 2)}" for i in range(clients)]))
    return {"shared_seconds": statistics.median(hit), "own_seconds": statistics.median(miss)}


def stall(url, length):
    ask(url, "warm up", 4)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        running = threads.submit(token_times, url, "Once upon a time", 2000, temperature=1.3, seed=1)  # nothing to guess
        time.sleep(1)
        start = time.perf_counter()
        ask(url, words(length, 5), 1)
        seconds = time.perf_counter() - start
        times = running.result()
    during = [t for t in times if 1 <= t <= 1 + seconds]
    gaps = sorted(b - a for a, b in zip(during, during[1:]))
    if not gaps:
        return {"prompt_seconds": seconds, "tokens_meanwhile": 0}
    return {
        "prompt_seconds": seconds,
        "tokens_meanwhile": len(gaps),
        "median_seconds": statistics.median(gaps),
        "p99_seconds": gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))],
    }


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, arguments, port, log):
        self.process = subprocess.Popen(list(map(str, arguments)), stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise SystemExit(f"error: {arguments[0]} does not answer: see {log.name}")

    def end(self):
        self.process.terminate()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def measure(start, settings, options):
    """`start` is told how many tokens all requests together may hold, for which the peer makes room, and one of the settings, the first where not said."""
    figures = {}
    if "throughput" in options.figures:
        for setting in settings:
            with start(max(options.clients) * 256, setting) as server:
                for clients in options.clients:
                    best, rate = figures.setdefault(f"{clients} clients", {"tokens_per_second": 0}), throughput(server.url, clients)
                    if rate > best["tokens_per_second"]:
                        best.update({"tokens_per_second": rate, "setting": setting})
                    print(f"  {clients:3} clients   {rate:8.1f} tokens/s  {setting}", flush=True)
    if "prefix" in options.figures:
        with start(32 * 2400, settings[0]) as server:
            figures["prefix"] = p = prefix(server.url)
        print(f"  first token  {p['shared_seconds']:.2f} s behind a shared beginning, {p['own_seconds']:.2f} s behind one's own", flush=True)
    if "stall" in options.figures:
        with start(options.long + 4096, settings[0]) as server:
            figures["stall"] = s = stall(server.url, options.long)
        if "p99_seconds" in s:
            between = f"{s['median_seconds'] * 1000:.0f} ms median, {s['p99_seconds'] * 1000:.0f} ms at 99 %"
        else:
            between = "no token of the other reply"
        print(f"  a prompt of {options.long} tokens read in {s['prompt_seconds']:.1f} s, meanwhile {between}", flush=True)
    return figures


def table(record):
    yield "# Servers, many clients"
    yield ""
    yield f"`{record['command']}`, {record['date']}, commit {record['commit']}, {record['machine']}. Tokens per second of all clients together;"
    yield "seconds to the first token of 32 clients at once; milliseconds between tokens while a long prompt arrives. What each means: `bench/serve.py --help`."
    yield ""
    yield "hadal guesses tokens where that pays; not in the coder-1.3b rows, whose random weights repeat themselves and are guessed too well (`-- --weights w4 --draft off`). Their"
    yield "GGUF file is that of `bench/peers/run`: Q4_0 there, packed as w4 here. SmolLM2 w8 is the same Q4_1 file packed in 8 bits here and as it is there."
    yield ""
    yield "| model | figure | hadal | llama.cpp's server | ratio |"
    yield "|---|---|---|---|---|"
    for model, engines in record["models"].items():
        ours, theirs = engines.get("hadal", {}), engines.get("llama.cpp", {})

        def row(name, key, field, digits, better=1, scale=1):
            a, b = ours.get(key, {}).get(field), theirs.get(key, {}).get(field)
            if a is None and b is None:
                return
            show = lambda v: "" if v is None else f"{v * scale:,.{digits}f}"
            ratio = f"{(a / b) ** better:.1f} x" if a and b else ""
            yield f"| {model} | {name} | {show(a)} | {show(b)} | {ratio} |"

        for clients in (1, 8, 32):
            yield from row(f"{clients} clients, tokens/s", f"{clients} clients", "tokens_per_second", 0)
        yield from row("first token behind 2,000 shared tokens, s", "prefix", "shared_seconds", 2, -1)
        yield from row("first token behind 2,000 tokens of one's own, s", "prefix", "own_seconds", 2, -1)
        yield from row("between tokens while a prompt arrives, median, ms", "stall", "median_seconds", 0, -1, 1000)
        yield from row("the same, 99th percentile, ms", "stall", "p99_seconds", 0, -1, 1000)
        yield from row("until that prompt is read, s", "stall", "prompt_seconds", 1, -1)


def note(options, engine, measured):
    """Adds the figures to the record, in which others stay, and writes its table."""
    if not options.out:
        return
    path = options.out.with_suffix(".json")
    record = json.loads(path.read_text()) if path.exists() else {"models": {}}
    record["command"] = 'bench/serve.py --peer "$(bench/peers/llama-server)" --out bench/results/serve'
    record["date"] = datetime.date.today().isoformat()
    record["commit"] = commit()
    record["machine"] = machine()
    name = options.name or " ".join([pathlib.Path(options.model).stem, *options.options])
    record["models"].setdefault(name, {}).setdefault(engine, {}).update(measured)
    path.write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text("\n".join(table(record)) + "\n")


def machine():
    doctor = subprocess.run([ROOT / "build/release/hadal", "doctor", "--json"], capture_output=True, text=True, check=True).stdout
    return json.loads(doctor)["cpu"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: text.split(",")
    parser.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--figures", type=split, default=["throughput", "prefix", "stall"])
    parser.add_argument("--long", type=int, default=7000, help="tokens of the prompt that arrives, about")
    parser.add_argument("--model", help="a GGUF file; default: that of script/model")
    parser.add_argument("--name", help="in the table; default: the model's, with the options")
    parser.add_argument("--peer", type=pathlib.Path, help="llama.cpp's llama-server")
    parser.add_argument("--out", type=pathlib.Path, help="without .md and .json")
    parser.add_argument("options", nargs="*", help="of hadal serve, behind --")
    options = parser.parse_args()
    options.model = options.model or subprocess.run([ROOT / "script/model"], capture_output=True, text=True, check=True).stdout.split("\n")[-2]
    log = tempfile.NamedTemporaryFile("w", prefix="serve-", suffix=".log", delete=False)

    def hadal(_context, _setting):
        port = free_port()
        arguments = [ROOT / "build/release/hadal", "serve", options.model, "--port", port, "--name", "default", "--replies", 40, *options.options]
        return Server(arguments, port, log)

    def llama(context, setting):
        port = free_port()
        arguments = [options.peer, "-m", options.model, "--port", port, "-np", 32, "-c", context, setting, "-t", 2, "--no-webui"]
        return Server(arguments, port, log)

    print(f"hadal, {pathlib.Path(options.model).name} {' '.join(options.options)}", flush=True)
    note(options, "hadal", measure(hadal, [""], options))
    if options.peer:
        print(f"llama.cpp, {pathlib.Path(options.model).name}", flush=True)
        note(options, "llama.cpp", measure(llama, ["-kvu", "-no-kvu"], options))
    if options.out:
        print(f"written: {options.out}.md and .json")


if __name__ == "__main__":
    main()
