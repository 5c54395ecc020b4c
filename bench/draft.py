#!/usr/bin/env python3
"""What guessing tokens is worth, into bench/results/draft.md: a text to be copied, code to be edited, and text that nothing foretells.

  bench/draft.py                       the default model, as script/model fetches it
  bench/draft.py --model PATH --out /tmp/try --patience 0

Each task runs without guesses and with them in turn, greedy or with one seed; the replies must be the same tokens. The fastest of the runs counts.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

from targets import ROOT, commit, wait_for_idle

PASSAGE = """The lighthouse keeper wrote one line in his book every evening: the wind, the state of the sea, the ships that passed and the hour
at which the lamp was lit. In forty years he missed two days. The first was the night his daughter was born in the room below the stairs, with the
sea so high that no one could come across; the second was the morning the new lamp arrived, which needed nobody to light it."""
CODE = """def area(shape):
    if shape.kind == "circle":
        return 3.14159 * shape.radius * shape.radius
    if shape.kind == "square":
        return shape.side * shape.side
    if shape.kind == "rectangle":
        return shape.width * shape.height
    raise ValueError(shape.kind)
"""
TASKS = {  # name: arguments of `hadal generate`
    "a passage copied": ["--raw", "--temperature", 0, "-p", f"{PASSAGE}\n\nThe same passage again:\n\n{PASSAGE[:80]}"],
    "code repeated with a change": ["--temperature", 0, "-p", f"Repeat this Python function exactly, but rename shape to figure:\n\n{CODE}"],
    "an ordinary answer": ["--temperature", 0, "-p", "Explain in a few sentences why the sky is blue."],
    "nearly random text": ["--raw", "--temperature", 3, "--seed", 7, "-p", "It was"],
}


def generate(options, task, how):
    arguments = [options.hadal, "generate", options.model, *task, "--max-tokens", 192, "--threads", options.threads, "--draft", how, "--json"]
    return json.loads(subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=True).stdout)


def markdown(options, rows):
    lines = [
        "# Guessed tokens",
        "",
        f"`bench/draft.py` on {time.strftime('%Y-%m-%d')}, commit {commit()}, {options.threads} threads, model {options.model.name}. Prompt look-up "
        "(`--draft auto`) beside `--draft off`; both give the same tokens.",
        "",
        "| task | tokens | off, tokens/s | auto, tokens/s | gain | guessed | right |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, off, auto in rows:
        lines.append(
            f"| {name} | {auto['tokens']} | {off['tokens_per_second']:.1f} | {auto['tokens_per_second']:.1f} | "
            f"{auto['tokens_per_second'] / off['tokens_per_second']:.2f} x | {auto['drafted']} | {auto['accepted']} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="default: what script/model fetches")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before each run")
    parser.add_argument("--hadal", type=pathlib.Path, default=ROOT / "build/release/hadal")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/draft", help="without .md")
    options = parser.parse_args()
    if not options.model:
        options.model = pathlib.Path(subprocess.run([ROOT / "script/model"], capture_output=True, text=True, check=True).stdout.strip())
    rows = []
    for name, task in TASKS.items():
        best = {}
        for _ in range(options.repeats):
            for how in ("off", "auto"):
                wait_for_idle(options.patience)
                done = generate(options, task, how)
                if how not in best or done["tokens_per_second"] > best[how]["tokens_per_second"]:
                    best[how] = done
        if best["off"]["ids"] != best["auto"]["ids"]:
            sys.exit(f"{name}: the replies differ")
        rows.append((name, best["off"], best["auto"]))
        print(f"{name}: {best['off']['tokens_per_second']:.1f} -> {best['auto']['tokens_per_second']:.1f} tokens/s", file=sys.stderr, flush=True)
    pathlib.Path(f"{options.out}.md").write_text(markdown(options, rows))


if __name__ == "__main__":
    main()
