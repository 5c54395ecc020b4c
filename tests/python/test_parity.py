"""Logits against the published implementation: every family, fed whole, in chunks of 5, and one row at a time, on every ISA level."""

import numpy as np
import pytest
from cases import CASES
from conftest import read_golden

CHUNKS = (512, 5, 1)
HALF_CACHE_TOLERANCE = 2e-2  # keys and values in f16, the default for models that are not f32


def worst(found, expected):
    """Largest difference, and where it is."""
    assert found.shape == expected.shape and found.dtype == np.float32
    difference = np.abs(found - expected)
    row, token = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), difference.shape)
    return difference[row, token], f"row {row} token {token}: expected {expected[row, token]}, found {found[row, token]}"


def check(hadal, golden, folder, *options, isa=None, tolerance=None):
    found = hadal.logits(golden.model, golden.ids, folder, *options, isa=isa)
    difference, where = worst(found, golden.tensors["logits"])
    assert difference <= (tolerance or golden.tolerance), f"{golden.name} {' '.join(map(str, options))}: {difference:.1e} at {where}"
    return found


@pytest.mark.parametrize("chunk", CHUNKS)
def test_logits(hadal, golden, isa, chunk, tmp_path):
    check(hadal, golden, tmp_path, "--chunk", chunk, "--cache", "f32", isa=isa)


def test_threads_do_not_matter(hadal, golden, tmp_path):
    one = check(hadal, golden, tmp_path, "--cache", "f32", "--threads", 1)
    two = check(hadal, golden, tmp_path, "--cache", "f32", "--threads", 2)
    assert np.array_equal(one, two), f"{golden.name}: {worst(two, one)}"


# In principle the rounding of a cached key may change which keys an indexer selects, or which experts: in these models it does not.
@pytest.mark.parametrize("chunk", CHUNKS)
def test_half_cache(hadal, golden, chunk, tmp_path):
    check(hadal, golden, tmp_path, "--chunk", chunk, "--cache", "f16", tolerance=HALF_CACHE_TOLERANCE)


@pytest.mark.parametrize("name", [case.name for case in CASES if not case.small])
def test_logits_of_uncommitted(hadal, made, name, tmp_path):
    golden = read_golden(made / name)
    for chunk in CHUNKS:
        check(hadal, golden, tmp_path, "--chunk", chunk, "--cache", "f32")
