#!/usr/bin/env python3
"""Many open streams at one server: what each costs, and that none is dropped.

bench/streams.py MODEL --streams 1000 --tokens 20
The streams are opened while the server is busy with another reply, so that they wait: what the server's memory has grown by is theirs.
Then all are read to their end. Prints one JSON object.
"""

import asyncio
import resource
import time

from load import Client, Server, main


async def measure(server, streams, tokens):
    before = server.resident()
    clients = [Client(server.port) for _ in range(streams)]
    body = {"prompt": "once upon a time", "max_tokens": tokens, "stream": True, "temperature": 0}
    began = time.monotonic()
    http, everything = server.cpu_seconds()

    async def follow(client):
        await client.send("/v1/completions", body)
        status, text = await client.whole()
        return status == 200 and text.endswith(b"data: [DONE]\n\n")

    tasks = [asyncio.create_task(follow(client)) for client in clients]
    highest = before
    while not all(task.done() for task in tasks):
        highest = max(highest, server.resident())
        await asyncio.sleep(0.02)
    done = await asyncio.gather(*tasks)
    seconds = time.monotonic() - began
    http_after, everything_after = server.cpu_seconds()
    for client in clients:
        client.leave()
    events = streams * tokens
    return {
        "streams": streams, "tokens": tokens, "seconds": round(seconds, 2), "dropped": done.count(False),
        "bytes_per_stream": (highest - before) // streams,
        "http_thread_of_a_core": round((http_after - http) / seconds, 4),
        "http_thread_microseconds_per_event": round((http_after - http) / events * 1e6, 1),
        "all_threads_of_a_core": round((everything_after - everything) / seconds, 3),
    }  # fmt: skip


def run(model, streams, tokens, options=()):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = Server(model, "--most-requests", streams, *options)
    asyncio.run(measure(server, 10, tokens))  # what is made once
    found = asyncio.run(measure(server, streams, tokens))
    metrics = server.metrics()
    found["counted"] = int(metrics['hadal_replies_total{finish="length"}'] + metrics.get('hadal_replies_total{finish="stop"}', 0))
    server.end()
    return found


if __name__ == "__main__":
    main(__doc__, run, "dropped", streams=1000, tokens=20)
