"""bench/soak.py and bench/streams.py in small: what they ask of the server holds, and they see it."""

import sys

import pytest
from conftest import GOLDEN, ROOT, TEMPLATE, copy_of, read_golden

sys.path.insert(0, str(ROOT / "bench"))
import soak  # noqa: E402
import streams  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    llama = read_golden(GOLDEN / "llama")
    return copy_of(tmp_path_factory.mktemp("soak") / "chatty", llama.model, TEMPLATE, max_position_embeddings=4096)


def test_a_mixed_crowd_is_accounted_for(hadal, model, monkeypatch):
    monkeypatch.setenv("HADAL", str(hadal.program))
    found = soak.soak(model, 1500, 16, growth=0.05, slack=8_000_000)  # the cache fills with what was read of prompts
    assert found["problems"] == []
    assert {"200", "400", "404", "499"} <= set(found["answers"])


def test_no_stream_is_dropped(hadal, model, monkeypatch):
    monkeypatch.setenv("HADAL", str(hadal.program))
    found = streams.run(model, 200, 5)
    assert found["dropped"] == 0 and found["counted"] == 210
    assert found["bytes_per_stream"] < 256 << 10
