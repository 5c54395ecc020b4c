#!/usr/bin/env python3
"""hadal beside llama.cpp and OpenVINO GenAI on the same shapes: speed, start, memory. Started by bench/peers/run, which installs the peers.

  bench/peers/run                                        everything, into bench/results/peers.md and .json
  bench/peers/run --sections coder-1.3b --figures decode     one shape, the figures whose name begins so
  bench/peers/run --out /tmp/try --patience 0            elsewhere, on a busy machine

Every engine has the same number of threads. Each figure of a peer is its best over its settings (llama.cpp: flash attention, weights repacked or
not, f16 or q8_0 cache; OpenVINO: its two attention back ends) and over the repeats; times are of whole calls. Before each figure the machine is
idle for a second, or the figure is marked.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

import shapes

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from targets import ROOT, commit, wait_for_idle  # noqa: E402


def prefill(tokens):
    return {"test": "prefill", "tokens": tokens, "depth": 0, "batch": 1}


def decode(depth=0, batch=1, tokens=32):
    return {"test": "decode", "tokens": tokens, "depth": depth, "batch": batch}


def name_of(figure):
    if figure["test"] == "start":
        return "start"
    if figure["test"] == "prefill":
        return f"prefill {figure['tokens']}"
    return f"decode, {figure['batch']} together" if figure["batch"] > 1 else f"decode behind {figure['depth']}"


START = {"test": "start"}
DENSE = [START, prefill(512), prefill(2048), decode(), decode(4096, tokens=16), decode(8192, tokens=16), decode(batch=8), decode(batch=32, tokens=16)]
SECTIONS = {  # name: shape, instruction set (empty: the best), figures
    "coder-1.3b": ("coder-1.3b", "", DENSE),
    "v2-lite": ("v2-lite", "", [START, prefill(512), prefill(2048), decode(tokens=16)]),
    "coder-1.3b with AVX2": ("coder-1.3b", "avx2", [prefill(512), decode()]),
}
LLAMA_CONTEXTS = [{"flash": False, "cache": "f16"}, {"flash": True, "cache": "f16"}, {"flash": True, "cache": "q8_0"}]


def words(setting):
    said = {"repack": ("repacked", "as stored"), "flash": ("fa on", "fa off")}
    return ", ".join(said[k][0 if v else 1] if k in said else str(v) for k, v in setting.items())


def problem_in(stderr):
    lines = stderr.strip().splitlines() or ["no message"]
    return next((line for line in lines if line.startswith("hadal: error: ")), lines[-1])


class Peer:
    """A worker process and what it is asked."""

    def __init__(self, name, model, threads, load, environment):
        self.load = load
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", name, model, str(threads), json.dumps(load)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ) | environment,
        )  # fmt: skip
        self.first = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}

    def ask(self, **request):
        if self.process.poll() is not None:
            return {"error": f"the process ended with {self.process.returncode}"}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Run:
    def __init__(self, options):
        self.options, self.results, self.limits, self.machine = options, {}, {}, {}
        self.started, self.trouble = time.monotonic(), []

    def say(self, text):
        print(f"{time.monotonic() - self.started:6.0f} s  {text}", file=sys.stderr, flush=True)

    def failed(self, what):
        if what not in self.trouble:
            self.trouble.append(what)
        self.say(what)

    def model(self, shape):
        path = self.options.folder / f"{shape}-q4_0.gguf"
        if not path.exists():
            self.say(f"writing {path.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            shapes.write(shape, self.options.tokenizer, path)
        return path

    def keep(self, section, engine, figure, seconds, setting, idle, **more):
        """Remembers the best; says whether this setting came within a tenth of it, so that trying again is worth while."""
        rate = figure["tokens"] * figure["batch"] / seconds if "tokens" in figure else None
        entry = {"seconds": seconds, "setting": setting, "idle": idle} | ({"tokens_per_second": rate} if rate else {}) | more
        of = self.results.setdefault(section, {}).setdefault(name_of(figure), {})
        tried = of.setdefault(engine, {"tried": {}})
        tried["tried"][setting] = min(seconds, tried["tried"].get(setting, seconds))
        near = seconds < 1.1 * tried.get("seconds", seconds)
        if seconds < tried.get("seconds", float("inf")):
            tried.update(entry)
        shown = f"{rate:.1f} tokens/s" if rate else f"{seconds:.2f} s"
        self.say(f"{section}: {name_of(figure)}: {engine} {shown}{' (' + setting + ')' if setting else ''}{'' if idle else ', machine not idle'}")
        return near

    def lost(self, section, engine, figure, setting):
        """At a smaller figure of the same kind this setting took 1.1 times the best: it is not tried at the bigger one."""
        for name, of in self.results.get(section, {}).items():
            kind = "decode behind" if figure["test"] == "decode" and figure["batch"] == 1 and figure["depth"] > 4096 else None
            kind = "prefill" if figure["test"] == "prefill" else kind
            if not kind or not name.startswith(kind) or name in (name_of(figure), "decode behind 0") or engine not in of:
                continue
            tried = of[engine]["tried"]
            if setting in tried and tried[setting] > 1.1 * of[engine]["seconds"]:
                return True
        return False

    def idle(self):
        return wait_for_idle(self.options.patience)

    def peer(self, section, name, model, load, contexts, figures, environment):
        idle = self.idle()
        peer = Peer(name, model, self.options.threads, load, environment)
        if "error" in peer.first:
            return self.failed(f"{section}: {name} ({words(load)}): {peer.first['error']}")
        for figure in figures:
            if figure["test"] == "start":
                self.keep(section, name, figure, peer.first["ready"], words(load), idle, bytes=peer.ask(test="memory").get("bytes"))
                continue
            for context in contexts:
                setting = words(load | context)
                if self.lost(section, name, figure, setting):
                    continue
                for _ in range(self.options.repeats):
                    idle = self.idle()
                    answer = peer.ask(**figure, **context)
                    if "error" in answer:
                        self.failed(f"{section}: {name_of(figure)}: {name} ({setting}): {answer['error']}")
                        break
                    if not self.keep(section, name, figure, answer["seconds"], setting, idle) or answer["seconds"] > self.options.long:
                        break
        peer.close()

    def hadal(self, section, shape, figures, environment):
        for figure in figures:
            if figure["test"] == "start":
                self.hadal_start(section, shape, environment)
                continue
            lengths = ["--prompt", figure["tokens"], "--generate", 0]
            if figure["test"] == "decode":
                lengths = ["--prompt", 0, "--generate", figure["tokens"], "--depth", figure["depth"], "--batch", figure["batch"]]
            for weights, cache in self.options.hadal_settings:
                setting = f"{weights}, {cache} cache"
                if self.lost(section, "hadal", figure, setting):
                    continue
                idle = self.idle()
                arguments = ["bench", "--preset", shape, "--weights", weights, "--cache", cache, "--threads", self.options.threads, "--json", *lengths]
                done = self.call(arguments, environment)
                if done.returncode != 0:
                    self.failed(f"{section}: {name_of(figure)}: hadal: {problem_in(done.stderr)}")
                    continue
                answer = json.loads(done.stdout)
                result = answer["results"][0]
                self.machine = self.machine or answer["machine"]  # of the first section: later ones may have a lower level
                seconds = figure["tokens"] * figure["batch"] / result["tokens_per_second"]
                self.keep(section, "hadal", figure, seconds, setting, idle, limit=result["limit"], share=result["share"])

    def call(self, arguments, environment):
        return subprocess.run(
            [self.options.hadal, *map(str, arguments)], capture_output=True, text=True, env=dict(os.environ) | environment, timeout=900
        )

    def hadal_start(self, section, shape, environment):
        """The whole process on a packed file in the page cache, from exec to exit: eight tokens in, logits out."""
        packed = self.options.folder / f"{shape}-w4"
        if not packed.exists():
            done = self.call(["quantize", self.model(shape), packed, "--weights", "w4"], environment)
            if done.returncode != 0:
                return self.failed(f"{section}: start: hadal: {problem_in(done.stderr)}")
        with tempfile.TemporaryDirectory() as folder:
            command = [self.options.hadal, "logits", packed, "--ids", "11,12,13,14,15,16,17,18", "--out", f"{folder}/x.npy"]
            command += ["--threads", str(self.options.threads)]
            for _ in range(3):
                idle = self.idle()
                start = time.perf_counter()
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ) | environment)
                problem = process.stderr.read()
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - start
                if status != 0:
                    return self.failed(f"{section}: start: hadal: {problem_in(problem)}")
                self.keep(section, "hadal", START, seconds, "w4", idle, bytes=usage.ru_maxrss * 1024)

    def section(self, name):
        shape, isa, figures = SECTIONS[name]
        figures = [f for f in figures if any(name_of(f).startswith(wanted) for wanted in self.options.figures)]
        if not figures:
            return
        ours = {"HADAL_ISA": isa} if isa else {}
        theirs = {"LLAMA_CPP_LIB_PATH": str(self.options.avx2.resolve())} if isa else {}
        if "hadal" in self.options.engines:
            self.hadal(name, shape, figures, ours)
        if "llama" in self.options.engines:
            for load in ({"repack": True}, {"repack": False}):
                self.peer(name, "llama", self.model(shape), load, LLAMA_CONTEXTS, figures, theirs)
        if "openvino" in self.options.engines and not isa and shape == "coder-1.3b":  # it reads no other architecture from GGUF
            for load in ({"backend": "PA"}, {"backend": "SDPA"}):
                self.peer(name, "openvino", self.model(shape), load, [{}], figures, {})
        if "hadal" in self.options.engines:  # once more: machines drift
            self.hadal(name, shape, figures, ours)


def cell(entry, start):
    if not entry or "seconds" not in entry:
        return "-"
    mark = "" if entry["idle"] else " *"
    if start:
        return f"{entry['seconds']:.2f} s, {entry['bytes'] / 1e9:.2f} GB{mark}"
    return f"{entry['tokens_per_second']:.1f}{mark}"


def ratio(ours, theirs):
    if not ours or not theirs or "seconds" not in ours or "seconds" not in theirs:
        return "-"
    return f"{theirs['seconds'] / ours['seconds']:.2f}"


def markdown(record):
    machine = record["machine"]
    lines = [
        "# hadal beside its peers",
        "",
        f"`bench/peers/run` on {record['date']}, commit {record['commit']}. {machine.get('cpu', platform.machine())}, {record['threads']} threads, "
        f"{machine.get('isa', '')}; measured: reads {machine.get('read_bandwidth', 0) / 1e9:.1f} GB/s, {machine.get('peak_flops', 0) / 1e9:.0f} GFLOPS in f32, {machine.get('peak_ops', 0) / 1e9:.0f} GOPS in int8. "
        + ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        + ".",
        "",
        "Tokens per second of all sequences together; random weights of the published shapes, w4 here, Q4_0 (output Q6_K) there. Each figure is the best over",
        "the engine's settings, the best setting in brackets; ratio: hadal's speed divided by the peer's. Start: from the start of the process (peers: from the",
        "import of their library) to the first token behind eight, the file in the page cache, and the most memory held. *: the machine was not idle.",
    ]
    for section, figures in record["results"].items():
        lines += ["", f"## {section}", "", "| figure | hadal | of the limit | llama.cpp | ratio | OpenVINO GenAI | ratio |", "|---|---|---|---|---|---|---|"]
        for figure, of in figures.items():
            ours, llama, openvino = of.get("hadal"), of.get("llama"), of.get("openvino")
            setting = lambda e: f" ({e['setting']})" if e and e.get("setting") else ""  # noqa: E731
            share = f"{100 * ours['share']:.0f} %" if ours and "share" in ours else ""
            start = figure == "start"
            lines.append(
                f"| {figure} | {cell(ours, start)}{setting(ours)} | {share} | {cell(llama, start)}{setting(llama)} | {ratio(ours, llama)} "
                f"| {cell(openvino, start)}{setting(openvino)} | {ratio(ours, openvino)} |"
            )
    if record["trouble"]:
        lines += ["", "What did not run:", ""] + [f"- {line}" for line in record["trouble"]]
    return "\n".join(lines) + "\n"


def settings(text):
    return [tuple(part.split("/")) for part in text.split(",")]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--sections", type=words, default=list(SECTIONS), help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--figures", type=words, default=[""], help="the figures whose names begin so: prefill,decode behind 0,start")
    parser.add_argument("--engines", type=words, default=["hadal", "llama", "openvino"])
    parser.add_argument("--hadal-settings", type=settings, default=settings("w4/i8"), help="WEIGHTS/CACHE,...; default: w4/i8")
    parser.add_argument("--repeats", type=int, default=2, help="of each setting, while it is near the best")
    parser.add_argument("--long", type=float, default=6, help="seconds from which a call is not repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before each figure")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="a GGUF whose vocabulary the peers' files get")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the peers' files are kept")
    parser.add_argument("--avx2", type=pathlib.Path, help="llama.cpp's libraries of the AVX2 level")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/peers", help="without .md and .json")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"no section is called {name}: expected one of {', '.join(SECTIONS)}")
    return options


def llama_build():
    done = subprocess.run(
        [sys.executable, "-c", "import llama_cpp as l; print(l.llama_print_system_info().decode())"], capture_output=True, text=True
    )
    features = re.findall(r"(\w+) = 1", done.stdout)
    return " ".join(features)


def main():
    options = parse()
    run = Run(options)
    for name in options.sections:
        run.section(name)
    record = {
        "command": "bench/peers/run",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "threads": options.threads,
        "machine": run.machine,
        "versions": {
            "hadal": run.call(["--version"], {}).stdout.split()[-1],
            "llama.cpp by llama-cpp-python": f"{version('llama-cpp-python')} ({llama_build()})",
            "OpenVINO GenAI": version("openvino-genai"),
        },
        "minutes": round((time.monotonic() - run.started) / 60, 1),
        "results": run.results,
        "trouble": run.trouble,
    }
    pathlib.Path(f"{options.out}.json").write_text(json.dumps(record, indent=1) + "\n")
    pathlib.Path(f"{options.out}.md").write_text(markdown(record))
    run.say(f"wrote {options.out}.md")


if __name__ == "__main__":
    main()
