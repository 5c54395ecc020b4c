"""What bench/soak.py and bench/streams.py share: a server under load, and HTTP/1.1 as a client speaks it, on bare sockets."""

import argparse
import asyncio
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]


class Server:
    """`hadal serve` as a child; its figures come from /proc and /metrics."""

    def __init__(self, model, *options, program=None):
        program = program or os.environ.get("HADAL", ROOT / "build" / "release" / "hadal")
        command = [program, "serve", model, "--port", 0, "--name", "load", *options]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)/v1", line)
        if not found:
            raise SystemExit(f"the server did not start: {line}")
        self.port = int(found[1])

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def resident(self):
        """bytes"""
        return int(re.search(r"VmRSS:\s+(\d+)", self._proc("status"))[1]) * 1024

    def cpu_seconds(self):
        """of the thread that talks HTTP, and of all"""
        ticks = lambda path: sum(map(int, path.read_text().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        folder = pathlib.Path(f"/proc/{self.process.pid}")
        return ticks(folder / "task" / str(self.process.pid) / "stat"), ticks(folder / "stat")

    def _proc(self, name):
        return pathlib.Path(f"/proc/{self.process.pid}/{name}").read_text()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


class Client:
    """One connection, opened when it is needed and kept while it can be."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def send(self, path, body):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        self.writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        await self.writer.drain()

    async def head(self):
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def whole(self):
        """status, body"""
        status, headers = await self.head()
        if headers.get("transfer-encoding") != "chunked":
            return status, await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return status, body

    async def ask(self, path, body):
        await self.send(path, body)
        return await self.whole()

    def leave(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


def main(description, run, failed, **numbers):
    """A script's command line: the model, and --NAME for each number. Prints what `run` found; the exit says whether it `failed`."""
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument("model")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    found = run(**vars(parser.parse_args()))
    print(json.dumps(found, indent=1))
    sys.exit(bool(found[failed]))
