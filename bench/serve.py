#!/usr/bin/env python3
"""How fast a server answers 1, 8 and 32 clients at a time: hadal's own, or whichever runs at an address.

  script/build && bench/serve.py                       the default model, replies of 64 tokens
  bench/serve.py -- --weights w8                       options of hadal serve
  bench/serve.py --clients 1,8 --url http://host:8080  a server that runs already

Each client sends one completion after another, of its own prompts; counted are the tokens that the servers say they gave.
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]


def ask(url, prompt, tokens):
    body = {"model": "default", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.loads(reply.read())["usage"]["completion_tokens"]


def measure(url, clients, requests, tokens):
    prompts = [f"Item {i} of a long list. Once upon a time in a town with {i + 3} bridges, there lived" for i in range(clients * requests)]
    ask(url, "warm up", 4)
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        given = sum(threads.map(lambda p: ask(url, p, tokens), prompts))
    return given / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("--tokens", type=int, default=64, help="of each reply")
    parser.add_argument("--url", help="of a server; default: hadal's is started")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("options", nargs="*", help="of hadal serve, behind --")
    options = parser.parse_args()
    server, url = None, options.url
    if not url:
        arguments = [ROOT / "build" / "release" / "hadal", "serve", options.model, "--port", "0", "--name", "default", *options.options]
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        url = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
    try:
        for clients in options.clients:
            rate = measure(url, clients, options.requests, options.tokens)
            print(f"{clients:4} clients  {rate:8.1f} tokens/s", flush=True)
    finally:
        if server:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
