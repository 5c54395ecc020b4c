"""The goldens themselves: they are what make.py makes, they are decided by wide margins, and every mistake worth fearing moves them."""

import copy
import math
import subprocess
import sys

import pytest
from cases import CASES, EXACT
from conftest import GOLDEN, read_golden

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")
import make  # noqa: E402
import reference  # noqa: E402


def case_named(name):
    return next(case for case in CASES if case.name == name)


def test_committed_are_what_make_makes():
    pytest.importorskip("transformers")
    done = subprocess.run([sys.executable, GOLDEN / "make.py", "--check"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", [case for case in CASES if case.small], ids=lambda case: case.name)
def test_margins(case):
    choice, greedy = read_golden(GOLDEN / case.name).tensors["margins"].tolist()
    assert choice > (10 * 1e-5 if case.tolerance == EXACT else 1e-2)
    assert greedy > 1e-3 or case.tolerance != EXACT


def edited(**changes):
    return lambda config: config.update(changes)


def rope_edited(**changes):
    return lambda config: config["rope_scaling"].update(changes)


# What implementations of the family have had wrong (families.md 5), as a change of the configuration that the reference reads.
CONFIG_MISTAKES = [
    ("llama_linear", "no linear scaling", edited(rope_scaling=None)),
    ("llama_linear", "another theta", edited(rope_theta=10000.0)),
    ("llama_llama3", "no llama3 scaling", edited(rope_scaling=None)),
    ("llama_llama3", "no blend between the bands", rope_edited(low_freq_factor=3.9999)),
    ("llama_llama3", "another epsilon", edited(rms_norm_eps=1e-2)),
    ("qwen2", "key-value heads by remainder", "head mapping"),
    ("qwen3_yarn", "attn_factor ignored", rope_edited(attn_factor=1.0)),
    ("qwen3_yarn", "no stretch", edited(rope_scaling=None)),
    ("deepseek", "weights normalised", edited(norm_topk_prob=True)),
    ("deepseek_v2_lite", "no m squared", rope_edited(mscale_all_dim=1e-9, mscale=1e-9)),
    ("deepseek_v2_lite", "halves for pairs", "halves"),
    ("deepseek_v2", "factor on cosine and sine forgotten", rope_edited(mscale=0.707)),
    ("deepseek_v2", "no groups", edited(n_group=1)),
    ("deepseek_v2", "groups by the sum of two", edited(topk_method="noaux_tc")),
    ("deepseek_v2", "the latents' norms with the others' epsilon", "one epsilon"),
    ("deepseek_v2", "no routed scale", edited(routed_scaling_factor=1.0)),
    ("deepseek_v3", "groups by their best", edited(topk_method="group_limited_greedy")),
    ("deepseek_v3", "no groups", edited(n_group=1)),
    ("deepseek_v3", "weights not normalised", edited(norm_topk_prob=False)),
    ("deepseek_v3", "softmax for sigmoid", edited(scoring_func="softmax")),
    ("deepseek_v3", "no bias", "no bias"),
    ("deepseek_v3", "no m squared", rope_edited(mscale_all_dim=1e-9, mscale=1e-9)),
    ("deepseek_v3", "halves for pairs", "halves"),
    ("deepseek_v32", "every key attended", edited(index_topk=1000)),
    ("deepseek_v32", "one key more", edited(index_topk=9)),
    ("deepseek_v32", "pairs in the indexer", "pairs"),
    ("deepseek_v32", "no bias of the index key's norm", "no key bias"),
]


def apply(mistake, config, tensors, monkeypatch):
    if callable(mistake):
        return mistake(config)
    rotate = reference.rotate
    if mistake in ("halves", "pairs"):
        monkeypatch.setattr(reference, "rotate", lambda x, angles, amplitude, pairs: rotate(x, angles, amplitude, mistake == "pairs"))
    elif mistake == "head mapping":
        monkeypatch.setattr(torch.Tensor, "repeat_interleave", lambda x, share, dim: torch.cat([x] * share, dim))
    elif mistake == "one epsilon":
        norm = reference.Reference.norm
        monkeypatch.setattr(reference.Reference, "norm", lambda self, name, x, eps=None: norm(self, name, x))
    elif mistake == "no bias":
        tensors.update({name: torch.zeros_like(t) for name, t in tensors.items() if name.endswith("e_score_correction_bias")})
    else:
        tensors.update({name: torch.zeros_like(t) for name, t in tensors.items() if name.endswith("k_norm.bias")})


@pytest.mark.parametrize("name, what, mistake", CONFIG_MISTAKES, ids=[f"{name}: {what}" for name, what, _ in CONFIG_MISTAKES])
def test_a_mistake_is_seen(name, what, mistake, monkeypatch):
    case, seed = case_named(name), make.read_seeds()[name]
    golden, (_, meant) = read_golden(GOLDEN / name), make.stored_and_meant(case_named(name), seed)
    config, tensors = copy.deepcopy(case.config), dict(meant)
    apply(mistake, config, tensors, monkeypatch)
    difference = (reference.Reference(config, tensors).logits(golden.ids).numpy() - golden.tensors["logits"]).__abs__().max()
    assert math.isfinite(difference) and difference > 10 * case.tolerance
