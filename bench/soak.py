#!/usr/bin/env python3
"""A mixed crowd against one server: nothing leaks, nothing is stuck, everything is accounted for.

bench/soak.py MODEL --requests 100000 --clients 32
Prints one JSON object; its `problems` are empty when all is well, and the exit status says the same.
"""

import asyncio
import random
import time

from load import Client, Server, main

WORDS = "the river runs past seven old mills before it meets the sea".split()


async def leaves_a_stream(client, draw):
    await client.send("/v1/completions", {"prompt": text(draw, 5), "max_tokens": 400, "stream": True, "ignore": 1})
    await client.reader.readuntil(b"data: ")
    client.leave()


async def leaves_without_an_answer(client, draw):
    await client.send("/v1/completions", {"prompt": text(draw, 5), "max_tokens": 400})
    if draw.random() < 0.5:
        await asyncio.sleep(draw.random() * 0.01)
    client.leave()


async def is_wrong(client, draw):
    body = draw.choice([{"prompt": "x", "temperature": 4}, {}, {"prompt": [10**9]}, {"prompt": "x", "n": 0}])
    status, _ = await client.ask("/v1/completions", body)
    return status


async def goes_nowhere(client, draw):
    return (await client.ask("/v1/nowhere", {}))[0]


async def asks(client, draw, words=8, **more):
    body = {"prompt": text(draw, words), "max_tokens": draw.randint(1, 12), "temperature": draw.choice([0, 1])} | more
    return (await client.ask("/v1/completions", body))[0]


async def streams(client, draw):
    status, body = await client.ask("/v1/completions", {"prompt": text(draw, 8), "max_tokens": draw.randint(1, 48), "stream": True})
    if not body.endswith(b"data: [DONE]\n\n"):
        raise AssertionError(f"a stream ended with {body[-80:]}")
    return status


def text(draw, words):
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, words)))


# How often, what, which status it must have; None: its client does not see one.
KINDS = [
    (1, leaves_a_stream, None),
    (1, leaves_without_an_answer, None),
    (2, is_wrong, 400),
    (1, goes_nowhere, 404),
    (6, asks, 200),
    (1, lambda c, d: asks(c, d, words=200), 200),
    (1, lambda c, d: asks(c, d, n=3), 200),
    (1, lambda c, d: asks(c, d, stop="e", logprobs=2), 200),
    (1, lambda c, d: asks(c, d, prompt=["a", "b c"]), 200),
    (1, lambda c, d: asks(c, d, max_tokens=200, timeout=0.02), (200, 408)),
    (2, streams, 200),
]


async def crowd(port, first, last, clients, problems):
    numbers, counts = iter(range(first, last)), {}

    async def work():
        client = Client(port)
        for i in numbers:
            draw = random.Random(i)
            _, kind, expected = draw.choices(KINDS, [often for often, _, _ in KINDS])[0]
            try:
                status = await kind(client, draw)
            except (OSError, AssertionError, asyncio.IncompleteReadError) as error:
                problems.append(f"request {i}: {error!r}")
                client.leave()
                continue
            counts[status] = counts.get(status, 0) + 1
            if status is not None and status not in (expected if isinstance(expected, tuple) else (expected,)):
                problems.append(f"request {i}: status {status}, expected {expected}")
        client.leave()

    await asyncio.gather(*(work() for _ in range(clients)))
    return counts


def answers_of(metrics):
    return {name.split('"')[1]: int(value) for name, value in metrics.items() if name.startswith("hadal_http_answers_total")}


def settle(server):
    for _ in range(600):
        metrics = server.metrics()
        if metrics["hadal_requests"] == 0:
            return metrics
        time.sleep(0.05)
    return server.metrics()


def soak(model, requests, clients, options=(), growth=0.01, slack=0):
    server, problems = Server(model, "--most-requests", 4 * clients, *options), []
    began = time.monotonic()
    warm = requests // 5
    seen = asyncio.run(crowd(server.port, 0, warm, clients, problems))
    settle(server)
    before = server.resident()
    for status, count in asyncio.run(crowd(server.port, warm, requests, clients, problems)).items():
        seen[status] = seen.get(status, 0) + count
    metrics = settle(server)
    after, answers = server.resident(), answers_of(metrics)
    if metrics["hadal_requests"] != 0:
        problems.append(f"{metrics['hadal_requests']} requests are stuck")
    for status, count in seen.items():
        if status not in (200, None) and answers.get(str(status), 0) != count:
            problems.append(f"status {status}: {count} were seen, {answers.get(str(status), 0)} counted")
    # A client that leaves may have been answered in the same moment; each look at the metrics is an answer too.
    if sum(answers.values()) < requests:
        problems.append(f"{sum(answers.values())} answers for {requests} requests")
    if after > before * (1 + growth) + slack:
        problems.append(f"resident memory grew from {before} to {after} bytes")
    if any(status.startswith("5") for status in answers):
        problems.append(f"answers of the server's own failure: {answers}")
    ended = server.end()
    if ended != 0:
        problems.append(f"the server ended with {ended}")
    return {
        "requests": requests, "clients": clients, "seconds": round(time.monotonic() - began, 1), "answers": answers,
        "resident_before": before, "resident_after": after, "growth": round(after / before - 1, 5), "problems": problems,
    }  # fmt: skip


if __name__ == "__main__":
    main(__doc__, soak, "problems", requests=100_000, clients=32)
