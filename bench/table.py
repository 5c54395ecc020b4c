#!/usr/bin/env python3
"""README's table of figures, made from bench/results/peers.json and hadal.json: between the lines that mark it, whatever stood there is replaced.

  bench/table.py            prints the table
  bench/table.py --write    puts it into README.md
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- figures: bench/table.py -->", "<!-- end of figures -->"


def read(name):
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def cell(entry):
    if not entry or "seconds" not in entry:
        return ""
    return f"{entry['tokens_per_second']:.1f}" if "tokens_per_second" in entry else f"{entry['seconds']:.2f} s"


def ratio(ours, theirs):
    return f" ({theirs['seconds'] / ours['seconds']:.1f} x)" if ours and theirs and "seconds" in ours and "seconds" in theirs else ""


def peers_table(record):
    yield f"Beside its peers, tokens per second, w4 here and Q4_0 there ([bench/results/peers.md](bench/results/peers.md), `{record['command']}`, {record['date']}):"
    yield ""
    yield "| shape | figure | hadal | of the limit | llama.cpp | OpenVINO GenAI |"
    yield "|---|---|---|---|---|---|"
    for section, figures in record["results"].items():
        for figure, of in figures.items():
            ours, llama, openvino = of.get("hadal"), of.get("llama"), of.get("openvino")
            share = f"{100 * ours['share']:.0f} %" if ours and "share" in ours else ""
            yield f"| {section} | {figure} | {cell(ours)} | {share} | {cell(llama)}{ratio(ours, llama)} | {cell(openvino)}{ratio(ours, openvino)} |"


def hadal_table(record):
    yield f"Alone ([bench/results/hadal.md](bench/results/hadal.md), `{record['command']}`, {record['date']}):"
    yield ""
    yield "| shape | weights | figure | tokens/s | of the limit | memory |"
    yield "|---|---|---|---|---|---|"
    for row in record["rows"]:
        r = row["result"]
        figure = f"prefill {r['tokens']}" if r["test"] == "prefill" else f"decode behind {r['depth']}"
        figure += f", {r['batch']} together" if r["batch"] > 1 else ""
        yield (
            f"| {row['shape']} | {row['weights']} | {figure} | {r['tokens_per_second']:.1f} | {100 * r['share']:.0f} % | {row['memory'] / 1e9:.2f} GB |"
        )


def figures():
    parts = []
    for name, table in (("peers", peers_table), ("hadal", hadal_table)):
        record = read(name)
        if record:
            parts.append("\n".join(table(record)))
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into README.md")
    text = figures()
    if not parser.parse_args().write:
        return print(text)
    path = ROOT / "README.md"
    readme = path.read_text()
    if BEGIN not in readme or END not in readme:
        sys.exit(f"README.md has no place for it: expected the lines {BEGIN} and {END}")
    head, rest = readme.split(BEGIN, 1)
    path.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
