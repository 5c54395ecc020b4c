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
