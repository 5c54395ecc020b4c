#!/usr/bin/env python3
"""Pictures of what was measured, bench/results/NAME.svg of NAME.json: bars of means with a point for each seed, and what was asked as a line.

  bench/pictures.py                      all that there are
  bench/pictures.py balance distill

Needs requirements-dev.txt.
"""

import argparse
import json
import pathlib
import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "hadal", "font.size": 9}  # words stay words, and the same picture is the same file
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / "results"
COLORS = ["#345", "#69c", "#b85", "#9bd", "#999"]


class Panel:
    """rows: values of a label, one a seed. form: how a number is written. asked: a value, and its words. first: where the scale begins; bars are drawn from 0, or on a logarithmic scale."""

    def __init__(self, title, rows, form="{:.1%}", asked=None, first=0.0, last=None, log=False, colors=len(COLORS)):
        self.title, self.rows, self.form, self.asked, self.first, self.log = title, rows, form, asked, first, log
        self.colors = COLORS[:colors]
        self.last = last or max(max(values) for values in rows.values())

    def draw(self, axes):
        bars = self.first == 0 or self.log
        for place, (values, color) in enumerate(zip(self.rows.values(), self.colors * len(self.rows))):
            mean = statistics.mean(values)
            if bars:
                axes.barh(place, max(mean, self.first) - self.first, left=self.first, height=0.62, color=color)
            else:
                axes.plot([mean, mean], [place - 0.35, place + 0.35], color=color, linewidth=2)
            if len(values) > 1 or not bars:
                axes.plot(values, [place] * len(values), "o", markersize=4, markerfacecolor="white" if bars else color, markeredgecolor="black", markeredgewidth=0.6)
            axes.annotate(self.form.format(mean), (max(*values, mean, self.first), place), (6, 0), textcoords="offset points", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        axes.set_yticks(range(len(self.rows)), list(self.rows))
        axes.set_ylim(len(self.rows) - 0.4, -0.6)
        if self.log:
            axes.set_xscale("log")
        if self.asked:
            value, words = self.asked
            axes.axvline(value, color="#c33", linewidth=1, linestyle="--")
            axes.annotate(words, (value, 1), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points", color="#c33", fontsize=8)
        axes.set_xlim(self.first, self.last * (self.last / self.first) ** 0.12 if self.log else self.last + 0.12 * (self.last - self.first))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %" if "%" in self.form else self.form.format(value))
        axes.set_title(self.title, loc="left", fontsize=10, pad=12)
        axes.spines[["top", "right"]].set_visible(False)


def draw(file, title, panels):
    heights = [len(panel.rows) + 2 for panel in panels]
    figure, all_axes = plt.subplots(len(panels), 1, figsize=(7.2, 0.5 + 0.28 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    for panel, axes in zip(panels, all_axes[:, 0]):
        panel.draw(axes)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def balance(record):
    def spreads(experts):
        rows = {}
        for run in record["runs"]:
            for which, words in (("measured", ""), ("calibrated", ", calibrated")):
                if run["experts"] == experts:
                    rows.setdefault(f"{run['kind']}{words}", []).append(run[which]["spread"])
        return rows

    panels = [Panel(f"{experts} experts", spreads(experts), first=0.005, last=10, log=True, asked=(asked, "asked of calibrated"), colors=2) for experts, asked in (("8", 0.025), ("64", 0.04))]
    return "(Most - least) / mean of the experts' loads, worst layer, unseen text", panels


def blocks(record):
    def right(name):
        return {kind: [run[name] for run in record["runs"] if run["kind"] == kind] for kind in dict.fromkeys(run["kind"] for run in record["runs"])}

    far = right("far")
    return "Recall under three masks: answers that are right", [
        *(Panel(f"over {distance} tokens", right(name), last=1) for name, distance in (("near", "1,000"), ("further", "3,500"))),
        Panel("over 10,240 tokens", far, last=1, asked=(0.97 * statistics.mean(far["dense"]), "97 % of dense, asked of blocks")),
    ]


def distill(record):
    runs = [(run["student"]["against"][0], run["labels"]["against"][0]) for run in record["seeds"]]
    teacher, student = (record["parameters"][who]["total"] for who in ("teacher", "student"))
    rows = {
        f"teacher, {teacher / 1e6:.1f} M": [runs[0][0]["teacher"]],
        f"student, {student / 1e6:.2f} M": [kept["student"] for kept, _ in runs],
        "the same on labels alone": [alone["student"] for _, alone in runs],
        "commonest answer": [runs[0][0]["chance"]],
    }
    return "Distillation: answers about unseen worlds that are right", [Panel("", rows, last=1, asked=(0.95 * runs[0][0]["teacher"], "95 % of the teacher, asked"))]


def mixtures(record):
    def losses(runs):
        return [run["loss"] for run in runs]

    dense, mixture = record["dense"], record["mixture"]
    onward = {kind: losses(run[kind] for run in record["onward"]) for kind in ("continued", "upcycled")}
    least = min(losses(mixture) + onward["upcycled"]) - 0.05
    from_nothing = {f"dense, {dense[0]['steps']} steps": losses(dense), f"mixture, {mixture[0]['steps']} steps": losses(mixture)}
    return "Experts at equal work: loss on unseen text", [
        Panel("from nothing", from_nothing, "{:.3f}", first=least, asked=(statistics.mean(losses(dense)), "asked of the mixture")),
        Panel(f"on from the dense model, {record['onward'][0]['continued']['steps']} steps", onward, "{:.3f}", first=least, asked=(0.98 * statistics.mean(onward["continued"]), "asked of upcycled")),
    ]


def recurrence(record):
    rows = {name: [run["exact"] for run in record["recall"] if run["memory"] == memory] for name, memory in (("memory of 80 tokens", True), ("none", False))}
    return "Recall over four segments: answers that are right", [Panel("", rows, last=1, asked=(0.95, "asked"))]


def training(record):
    def panel(row):
        rows = {name: [row[key]] for name, key in (("hadal", "hadal"), ("eager PyTorch", "eager"), ("torch.compile", "compiled")) if key in row}
        return Panel(row["figure"], rows, "{:,.0f}")

    return "Training beside PyTorch: tokens per second", [panel(row) for row in record]


PICTURES = {"balance": balance, "blocks": blocks, "distill": distill, "mixtures": mixtures, "recurrence": recurrence, "training": training}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default="all", choices=["all", *PICTURES], metavar="name", help=", ".join(PICTURES))
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="the folder of both")
    options = parser.parse_args()
    for name in PICTURES if "all" in options.names else options.names:
        record = options.results / f"{name}.json"
        draw(record.with_suffix(".svg"), *PICTURES[name](json.loads(record.read_text())))
        print(record.with_suffix(".svg"))


if __name__ == "__main__":
    main()
