"""Trainings that must learn: what hadal-train makes, the engine marks."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from test_train import TRAIN, hadal

pytestmark = pytest.mark.skipif(not TRAIN.exists(), reason="hadal-train is built where the torch wheel is (requirements-train.txt)")


def test_a_memory_of_earlier_segments_is_used(tmp_path):
    """Recall over four segments, as bench/training/recurrence.py measures it, with fewer steps."""
    programs = ["--hadal", TRAIN.parent / "hadal", "--train", TRAIN]
    command = [sys.executable, ROOT / "bench/training/recurrence.py", "--only", "recall", "--seeds", "1", "--steps", "500", "--out", tmp_path / "found", *programs]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    remembers, forgets = json.loads((tmp_path / "found.json").read_text())["recall"]
    assert remembers["memory"] and remembers["digits"] > 0.3
    assert not forgets["memory"] and forgets["exact"] < 0.02 and forgets["digits"] < 0.15
