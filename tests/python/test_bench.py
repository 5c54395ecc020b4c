"""The scripts that write bench/results and README's table, on made-up records."""

import importlib.util
import json
import subprocess
import sys
import time

import pytest
from conftest import ROOT


def load(path, *folders):
    for folder in folders:
        sys.path.insert(0, str(ROOT / folder))
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record():
    decode = {"test": "decode", "tokens": 8, "depth": 64, "batch": 2, "tokens_per_second": 40.0, "limit": 50.0, "share": 0.8}
    row = {"shape": "coder-1.3b", "weights": "w4", "cache": "i8", "idle": True, "memory": 2e9, "spread": 0.02, "result": decode}
    machine = {"cpu": "a cpu", "isa": "avx2", "threads": 2, "read_bandwidth": 5e10, "peak_flops": 1e11}
    return {"command": "script/bench targets", "date": "2026-01-02", "commit": "abc", "machine": machine, "rows": [row], "trouble": ["x: y"]}


def peers_record():
    entry = lambda seconds, **more: {"seconds": seconds, "tokens_per_second": 16 / seconds, "setting": "s", "idle": True, "tried": {}} | more  # noqa: E731
    results = {"coder-1.3b": {"decode behind 0": {"hadal": entry(0.4, share=0.9), "llama": entry(1.0)}}}
    return {"command": "bench/peers/run", "date": "2026-01-02", "results": results}


def test_rows_of_the_report():
    targets = load("bench/targets.py")
    text = targets.markdown(record())
    assert "| coder-1.3b | w4, i8 | decode behind 64, 2 together | 40.0 | 50.0 | 2 % | 50.0 | 80 % | 2.00 GB |" in text
    assert "- x: y" in text
    for shape, weights, cache, arguments in targets.commands():
        assert arguments[:6] == ["--preset", shape, "--weights", weights, "--cache", cache]


def test_the_table_replaces_what_stood_between_its_marks(tmp_path, monkeypatch):
    table = load("bench/table.py")
    (tmp_path / "hadal.json").write_text(json.dumps(record()))
    (tmp_path / "peers.json").write_text(json.dumps(peers_record()))
    (tmp_path / "README.md").write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py", "--write"])
    for _ in range(2):
        table.main()
        lines = (tmp_path / "README.md").read_text().splitlines()
        assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
        assert "| coder-1.3b | w4 | decode behind 64, 2 together | 40.0 | 80 % | 2.00 GB |" in lines
        assert "| coder-1.3b | decode behind 0 | 40.0 | 90 % | 16.0 (2.5 x) |  |" in lines


def test_long_text_beside_all_of_it(tmp_path, hadal):
    long = load("bench/long.py", "bench")
    seen = {"idle": True, "share": 0.5, "tokens_per_second": 20.0, "memory": 4e9}
    row = {"figure": "decode behind 64", "shape": "coder-1.3b", "weights": "w4", "cache": "i8"}
    row["seen"] = [seen | {"sees": "all"}, seen | {"sees": "8 + 4", "tokens_per_second": 50.0, "memory": 3e9, "idle": False}]
    text = long.markdown(record() | {"rows": [row], "alone": [("i8", "one row", 3000.0, 1500.0)]})
    assert "| coder-1.3b, w4, i8 | decode behind 64 | all | 20.0 |  | 50 % | 4.00 GB |" in text
    assert "| coder-1.3b, w4, i8 | decode behind 64 * | 8 + 4 | 50.0 | 2.50 x | 50 % | 3.00 GB (-25 %) |" in text
    assert "| i8 | one row | 3.000 | 1.500 | 2.0 x |" in text
    long.write_small(tmp_path)
    assert json.loads(hadal.run("info", tmp_path, "--json").stdout)["dim"] == 256


def test_experts_from_disk_beside_their_prediction():
    disk = load("bench/disk.py", "bench")
    within = {"hit_rate": 0.75, "disk_bytes_per_second": 2e9, "tokens_per_second": 3.0}
    row = {"shape": "article-v3", "weights": "w2", "memory": "14.3GB", "file": 20e9, "held": 14e9, "experts_of_a_token": 2e9, "spread": 0.1}
    row |= {"within": [within, within | {"disk_bytes_per_second": 1e9}], "result": {"tokens_per_second": 2.5}}
    text = disk.markdown(record() | {"rows": [row]})
    assert "| article-v3, w2 | 20.0 GB | 14.3 GB | 14.00 GB | 75 % | 2.00, 1.00 GB/s | 3.0, 3.0 | 2.5 (spread 10 %) | 4.0, 2.0 |" in text


def test_what_packing_costs():
    quality = load("bench/quality.py", "bench")
    row = {"weights": "w4", "kept": "attention", "cache": "f16", "perplexity": 11.0, "reference": 10.0}
    row |= {"divergence": 0.1, "divergence_99": 1.0, "same": 0.8}
    text = quality.markdown(record() | {"machine": "a cpu", "model": "m", "text": "t", "windows": 3, "rows": [row]})
    assert "| w4 | attention | f16 | 11.0000 | 10.0000 | +10.00 % | 0.1000 | 1.000 | 80.0 % |" in text
    assert "# hadal" in quality.own_pages()


def test_what_adapters_cost():
    bench = load("bench/adapters.py", "bench")
    gaps = {"gaps": 100, "median": 0.004, "p99": 0.005, "p999": 0.006, "longest": 0.007}
    swaps = {"with": gaps, "without": gaps | {"longest": 0.0065}, "answered": {"median": 0.01, "longest": 0.02}}
    rates = {"none": 100.0, "one": 80.0}
    made = {"machine": "a cpu", "rank": 2, "bytes": 1e6, "swaps": 3, "pace": 0.05, "tokens_per_second": rates, "under_swaps": swaps}
    text = bench.markdown(record() | made)
    assert "| none | 100 |  |" in text and "| one | 80 | 20 % |" in text
    assert "| without swaps | 100 | 4.00 | 5.00 | 6.00 | 6.50 |" in text and "| with swaps | 100 | 4.00 | 5.00 | 6.00 | 7.00 |" in text


def test_servers_side_by_side():
    serve = load("bench/serve.py", "bench")
    engines = {"hadal": {"8 clients": {"tokens_per_second": 300.0}}, "llama.cpp": {"8 clients": {"tokens_per_second": 100.0}}}
    lines = list(serve.table({"command": "c", "date": "d", "commit": "e", "machine": "m", "models": {"x": engines}}))
    assert "| x | 8 clients, tokens/s | 300 | 100 | 3.0 x |" in lines


def test_waiting_for_an_idle_machine_ends():
    idle = load("bench/peers/idle.py")
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert not idle.wait_for_idle(0.2, most_busy=0.0, for_seconds=0.2)
        finally:
            busy.kill()
    assert time.monotonic() - start < 5
    assert idle.wait_for_idle(1, most_busy=1.0, for_seconds=0.1)


def test_the_best_of_a_peer_counts():
    pytest.importorskip("gguf")
    peers = load("bench/peers/peers.py", "bench/peers")
    run = peers.Run(None)
    figure = peers.prefill(100)
    assert run.keep("s", "llama", figure, 2.0, "a", True)
    assert not run.keep("s", "llama", figure, 4.0, "b", True)
    assert run.keep("s", "llama", figure, 1.0, "a", False)
    assert run.keep("s", "hadal", figure, 0.5, "w4", True, share=0.5)
    best = run.results["s"]["prefill 100"]["llama"]
    assert best["tokens_per_second"] == 100 and best["setting"] == "a" and best["tried"] == {"a": 1.0, "b": 4.0}
    assert run.lost("s", "llama", peers.prefill(200), "b") and not run.lost("s", "llama", peers.prefill(200), "a")
    text = peers.markdown(
        {"date": "d", "commit": "c", "threads": 2, "machine": {}, "versions": {"x": "1"}, "results": run.results, "trouble": []}
    )
    assert "| prefill 100 | 200.0 (w4) | 50 % | 100.0 * (a) | 2.00 | - | - |" in text
