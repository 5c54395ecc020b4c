"""hadal balance: figures of a checkpoint's routers, a picture, biases written into a copy; hadal upcycle: a dense model made a mixture."""

import json

import pytest
from conftest import GOLDEN, ROOT
from safetensors.numpy import load_file
from test_train import TRAIN

MIXTURE, UNBIASED, DENSE = (GOLDEN / name / "model" for name in ("deepseek_v3", "deepseek_v2_lite", "llama"))
CONTEXT = ("--context", 32, "--threads", 2)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("balance") / "text.txt"
    path.write_text((ROOT / "docs" / "architecture.md").read_text()[:20000])
    return path


def test_figures_of_every_layer(hadal, text, tmp_path):
    picture = tmp_path / "load.svg"
    found = json.loads(hadal.run("balance", MIXTURE, text, *CONTEXT, "--json", "--loss", "--picture", picture).stdout)
    config = json.loads((MIXTURE / "config.json").read_text())
    for layer in found["layers"]:
        assert sum(layer["load"]) == found["tokens"] * config["num_experts_per_tok"]
        mean = sum(layer["load"]) / len(layer["load"])
        assert layer["spread"] == pytest.approx((max(layer["load"]) - min(layer["load"])) / mean)
    assert found["loss"] > 0
    assert picture.read_text().count("<title>") == sum(len(layer["load"]) for layer in found["layers"])


def test_calibration_writes_biases_and_nothing_else(hadal, text, tmp_path):
    folder = tmp_path / "calibrated"
    found = json.loads(hadal.run("balance", MIXTURE, text, *CONTEXT, "--json", "--calibrate", folder).stdout)
    assert found["worst_spread"] < found["before"]["worst_spread"]
    old, new = load_file(MIXTURE / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name in old if old[name].tobytes() != new[name].tobytes()}
    assert changed and all(name.endswith("e_score_correction_bias") for name in changed)
    again = json.loads(hadal.run("balance", folder, text, *CONTEXT, "--json").stdout)
    assert again["worst_spread"] < found["before"]["worst_spread"]


def test_refusals(hadal, text, tmp_path):
    assert "found a dense model" in hadal.run("balance", DENSE, text, expect=1).stderr
    assert "noaux_tc" in hadal.run("balance", UNBIASED, text, *CONTEXT, "--calibrate", tmp_path / "no", expect=1).stderr
    assert "a new folder" in hadal.run("balance", MIXTURE, text, "--calibrate", tmp_path, expect=1).stderr
    assert "expected one of" in hadal.run("balance", MIXTURE, "nothing:train", expect=1).stderr


@pytest.mark.skipif(not TRAIN.exists(), reason="hadal-train is built where the torch wheel is (requirements-train.txt)")
def test_upcycled_says_what_the_dense_model_says(hadal, tmp_path):
    folder = tmp_path / "mixture"
    hadal.run("upcycle", DENSE, folder, "--experts", 8, "--active", 2, "--type", "f32")
    replies = [hadal.run("generate", m, "--raw", "-p", "Once upon", "--temperature", 0, "--max-tokens", 12).stdout for m in (DENSE, folder)]
    assert replies[0] == replies[1]
    assert "a divisor of the dense width" in hadal.run("upcycle", DENSE, tmp_path / "no", "--expert-dim", 2, expect=1).stderr
    assert not (tmp_path / "no").exists()
