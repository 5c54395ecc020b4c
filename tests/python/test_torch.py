"""hadal.torch: the C++ forward pass under PyTorch's own parameters, beside transformers: logits, gradients, steps of optimizers, files, ranks."""

import copy
import doctest
import importlib
import importlib.util
import json
import os
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import GOLDEN, ROOT, read_golden

torch = pytest.importorskip("torch", reason="hadal.torch needs torch (requirements-dev.txt)")
load_file, save_file = (getattr(importlib.import_module("safetensors.torch"), name) for name in ("load_file", "save_file"))

FAMILIES = (
    "llama", "llama_linear", "llama_llama3", "qwen2", "qwen2_window", "qwen2_tied", "qwen3_yarn",
    "deepseek", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3", "deepseek_v32",
)  # fmt: skip
TRAINED = ("llama", "qwen2_tied", "deepseek_v2", "deepseek_v3")
YARN_FACTOR = 0.95 * (0.1 * np.log(4.0) + 1)  # of qwen3_yarn: transformers ignores attn_factor, its authors meant the product


@pytest.fixture(scope="module")
def hadal_torch(package):
    if not list(pathlib.Path(package.__file__).parent.glob("_train*.so")):
        pytest.skip("hadal.torch is built where torch is (requirements-train.txt, then script/build release hadal_python)")
    torch.set_num_threads(1)
    return importlib.import_module("hadal.torch")


@pytest.fixture
def make(hadal_torch):
    return lambda name, **options: hadal_torch.DeepSeekModel.from_pretrained(read_golden(GOLDEN / name).model, **options)


@pytest.fixture
def batch():
    ids = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(3))
    labels = ids.clone()
    labels[0, 5:9] = -100
    return ids, labels


class Reference(torch.nn.Module):
    """tests/golden/reference.py with a way back, for the family that transformers lacks."""

    def __init__(self, config, tensors):
        super().__init__()
        self.reference = importlib.import_module("reference").Reference(config, tensors)
        self.reference.weights = {name: torch.nn.Parameter(tensor) for name, tensor in self.reference.weights.items()}

    def named_parameters(self, *_, **__):
        return iter(self.reference.weights.items())

    def forward(self, ids, labels):
        logits = torch.stack([type(self.reference).logits.__wrapped__(self.reference, row.tolist()) for row in ids])
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"logits": logits, "loss": loss}


def published(name, folder):
    """The published implementation of a golden model, in float32."""
    source = read_golden(GOLDEN / name).model
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] == "deepseek":
        return Reference(config, load_file(source / "model.safetensors"))
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder.mkdir()
    tensors = {}
    for file in sorted(source.iterdir()):
        if file.suffix in (".safetensors", ".bin"):
            tensors |= load_file(file) if file.suffix == ".safetensors" else torch.load(file)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if name == "qwen3_yarn":
        config["rope_scaling"]["attention_factor"] = YARN_FACTOR
    (folder / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 0}))
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )


def under_published_names(model, folder):
    """Parameters as the checkpoint names them; transformers' own names differ in memory."""
    if isinstance(model, Reference):
        return {name: tensor.detach() for name, tensor in model.named_parameters()}
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def gradients_of(model, folder):
    if isinstance(model, Reference):
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    stored = copy.deepcopy(model)
    for there, here in zip(stored.parameters(), model.parameters()):
        there.data = torch.zeros_like(here) if here.grad is None else here.grad
    return under_published_names(stored, folder)


def own_gradients(model):
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def assert_near(found, expected, what, relative=2e-5):
    scale = max(expected.abs().max().item(), 1e-3)
    difference = (found - expected).abs().max().item()
    assert difference <= relative * scale, f"{what}: they differ by {difference:.1e}, the largest is {scale:.1e}"


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_gradients_are_the_published_ones(make, batch, name, tmp_path):
    ids, labels = batch
    theirs, ours = published(name, tmp_path / "model"), make(name)
    expected, found = theirs(ids, labels=labels), ours(ids, labels=labels)
    assert_near(found.logits, expected["logits"], "logits")
    assert_near(found.loss, expected["loss"], "loss", 1e-6)
    expected["loss"].backward()
    found.loss.backward()
    wanted, have = gradients_of(theirs, tmp_path / "gradients"), own_gradients(ours)
    assert {name for name in have if "indexer" not in name} <= set(wanted)
    for key, gradient in have.items():
        assert_near(gradient, wanted[key], key, 5e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", TRAINED)
def test_steps_are_those_of_transformers(make, batch, name, optimizer, tmp_path):
    ids, labels = batch
    theirs, ours = published(name, tmp_path / "model"), make(name)
    made = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, eps=1e-4, weight_decay=0.1),
    }[optimizer]
    losses = []
    for model in (theirs.train(), ours.train()):
        steps = made(model.parameters())
        losses.append([])
        for _ in range(8):
            steps.zero_grad()
            loss = model(ids, labels=labels)["loss"]
            loss.backward()
            steps.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0] - 0.1, "it learns"
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    wanted = under_published_names(theirs, tmp_path / "trained")
    for key, tensor in ours.state_dict().items():
        assert_near(tensor, wanted[key], key, 1e-3)


def test_the_state_is_the_checkpoint(hadal_torch, make):
    for name in ("llama", "deepseek_v3"):
        model, stored = make(name), load_file(GOLDEN / name / "model" / "model.safetensors")
        state = model.state_dict()
        assert set(state) == set(stored)
        assert all(torch.equal(state[key], stored[key]) for key in stored)
        other = hadal_torch.DeepSeekModel.from_config(GOLDEN / name / "model", seed=5)
        assert not torch.equal(other.state_dict()["lm_head.weight"], state["lm_head.weight"])
        assert str(other.load_state_dict(state)) == "<All keys matched successfully>"
        ids = torch.arange(12)
        assert torch.equal(other(ids).logits, model(ids).logits)
    assert "e_score_correction_bias" not in " ".join(dict(model.named_parameters())), "set, not learnt"


def test_nothing_is_copied(make, batch):
    """What an optimizer writes into a parameter is what the next pass computes with."""
    model, (ids, _) = make("llama"), batch
    before = model(ids).logits
    addresses = {name: p.data_ptr() for name, p in model.named_parameters()}
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    assert not torch.equal(model(ids).logits, before)
    assert addresses == {name: p.data_ptr() for name, p in model.named_parameters()}
    zero = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert not torch.func.functional_call(model, zero, (ids,)).logits.any(), "parameters may be replaced for one pass"


def test_copies(make, batch):
    ids, labels = batch
    model = make("deepseek_v2", attention_window=7)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.config.attention_window == 7
        assert torch.equal(other(ids).logits, model(ids).logits)
        with torch.no_grad():
            other.model.norm.weight.zero_()
        assert not other(ids).logits.any() and model(ids).logits.any()
        other.config.attention_window = None
        assert model.config.attention_window == 7


def test_types(make, batch):
    ids, labels = batch
    for name in ("llama", "deepseek_v3"):
        exact = make(name)(ids, labels=labels)
        half = make(name, dtype=torch.bfloat16)
        assert {t.dtype for t in half.state_dict().values()} == {torch.bfloat16}
        out = half(ids, labels=labels)
        assert out.logits.dtype == torch.float32 and abs(out.loss - exact.loss) < 0.1
        out.loss.backward()
        assert all(p.grad is None or p.grad.dtype == torch.bfloat16 for p in half.parameters())
        wide = make(name).double()(ids, labels=labels)
        assert abs(wide.loss - exact.loss) < 1e-5
        model = make(name)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(ids, labels=labels)
        assert not torch.equal(out.logits, exact.logits) and abs(out.loss - exact.loss) < 0.1
        out.loss.backward()
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("name", ["llama", "deepseek_v2"])
def test_recomputed_blocks_give_the_same_gradients(make, batch, name):
    ids, labels = batch
    plain, recomputed, frozen = make(name), make(name), make(name)
    plain(ids, labels=labels).loss.backward()
    for model in (recomputed, frozen):
        model.gradient_checkpointing_enable()
        model.config.attention_window = 9
        model.config.attention_window = None
    frozen.model.embed_tokens.requires_grad_(False)
    losses = [recomputed(ids, labels=labels).loss, frozen(ids, labels=labels).loss]
    wanted = own_gradients(plain)
    for model, loss in zip((recomputed, frozen), losses):
        loss.backward()
        for key, gradient in own_gradients(model).items():
            if key != "model.embed_tokens.weight" or model is recomputed:
                assert_near(gradient, wanted[key], key, 1e-5)
    loss = recomputed(ids, labels=labels).loss
    del recomputed, model  # the way back holds what it needs
    loss.backward()


def test_what_is_saved_runs_in_the_engine(hadal, package, make, batch, tmp_path):
    ids, labels = batch
    for name in ("llama", "llama_llama3", "qwen2_tied", "deepseek_v2_lite", "deepseek_v3", "deepseek_v3_fp8", "deepseek_v32", "gguf_deepseek2_lite"):
        model = make(name)
        steps = torch.optim.AdamW(model.parameters(), lr=1e-3)
        model(ids, labels=labels).loss.backward()
        steps.step()
        folder = tmp_path / name
        model.save_pretrained(folder)
        for row, logits in zip(ids, model(ids).logits):
            engine = hadal.logits(folder, row.tolist(), tmp_path, "--cache", "f32")
            assert_near(torch.from_numpy(engine), logits.detach(), name, 5e-5)
        if name in ("llama", "gguf_deepseek2_lite"):
            with package.load(folder) as loaded:
                assert loaded.tokenizer.encode("once").size, "the tokenizer comes along"
        again = type(model).from_pretrained(folder)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters()))
        model.save_pretrained(folder, dtype=torch.bfloat16)
        assert load_file(folder / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_a_window_is_saved(package, make, tmp_path):
    model = make("llama", attention_window=6, attention_sinks=2)
    model.save_pretrained(tmp_path / "saved")
    ids = torch.arange(40).unsqueeze(0)
    with package.load(tmp_path / "saved", cache="f32") as engine:
        assert_near(torch.from_numpy(engine.logits(ids[0].tolist())), model(ids).logits[0].detach(), "logits", 5e-5)
    assert not torch.equal(make("llama")(ids).logits, model(ids).logits)
    assert torch.equal(make("llama")(ids, attention_window=6, attention_sinks=2).logits, model(ids).logits)


def test_segments_behind_a_memory(hadal_torch, make):
    model = make("llama", attention_window=6, attention_sinks=2)
    ids = torch.arange(40).unsqueeze(0)
    memory = hadal_torch.Memory(rows=5, sinks=2)
    with torch.no_grad():
        parts = [model(segment, memory=memory).logits for segment in ids.split(7, 1)]
        assert_near(torch.cat(parts, 1), model(ids).logits, "logits")
    assert (memory.position, memory.kept) == (40, 7)


def test_what_a_pass_tells(make, batch):
    ids, labels = batch
    model = make("deepseek_v2_lite")
    out = model(ids, labels, output_hidden_states=True, output_router_logits=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(2, 24, 21)] * 3
    assert_near(out.hidden_states[-1] @ model.lm_head.weight.T, out.logits, "the last state is what the head reads")
    (routing,) = out.routings
    assert routing.layer == 1 and routing.scores.shape == (48, 5) and routing.experts.shape == (48, 2)
    assert_near(routing.scores.sum(-1), torch.ones(48), "softmax")
    assert out[0] is out.loss and out[1] is out.logits and out["logits"] is out.logits and model(ids)[0].shape == (2, 24, 300)
    (out.hidden_states[1].square().mean() + routing.scores.square().mean()).backward()
    assert model.model.layers[1].mlp.gate.weight.grad.abs().max() > 0 and model.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0
    padded = torch.nn.functional.pad(ids, (0, 3))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 3))
    assert_near(model(padded, attention_mask=mask).logits[:, :24], out.logits.detach(), "padding behind the text is not seen")


def test_what_is_refused(package, hadal_torch, make, tmp_path):
    model = make("deepseek_v2_lite")
    ids = torch.arange(8).unsqueeze(0)
    indexed = make("deepseek_v32")
    (tmp_path / "other.safetensors").write_bytes(b"")
    elsewhere = copy.deepcopy(model).to("meta")
    misshaped = copy.deepcopy(model)
    misshaped.model.norm.weight = torch.nn.Parameter(torch.ones(3))
    model.gradient_checkpointing_enable()
    said = [
        (lambda: model(ids + 296), "input_ids: expected ids from 0 to 299, found 303"),
        (lambda: model(ids[:, :0]), "at least one token"),
        (lambda: model(ids, labels=ids[:, 1:]), "labels: expected the shape of input_ids, [1, 8], found [1, 7]"),
        (lambda: model(ids, attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1]])), "padding behind the text only"),
        (lambda: model(ids, attention_sinks=2), "attention_sinks"),
        (lambda: model(ids, output_router_logits=True), "expected no gradient checkpointing"),
        (lambda: indexed(ids, attention_window=4), "indexer"),
        (lambda: elsewhere(ids), "on the CPU"),
        (lambda: misshaped(ids), "model.norm.weight: expected floating point values of shape [21]"),
        (lambda: setattr(model.config, "attention_window", 0), "attention_window: expected a whole number"),
        (lambda: model.save_pretrained(tmp_path), "another model's weights"),
        (lambda: model.save_pretrained(tmp_path / "x", dtype=torch.float16), "torch.float32 or torch.bfloat16"),
        (lambda: hadal_torch.Memory(rows=-1), "0 rows or more"),
        (lambda: hadal_torch.DeepSeekModel.from_config({"model_type": "nonsense"}), "nonsense"),
        (lambda: hadal_torch.DeepSeekModel.from_config({"model_type": "llama", "hidden_size": 16384, "num_hidden_layers": 128}), "GB in float32"),
        (lambda: hadal_torch.DeepSeekModel.from_pretrained("nonsense", local_files_only=True), 'there is no model "nonsense" here'),
    ]
    for what, message in said:
        with pytest.raises(package.Error) as error:
            what()
        assert message in str(error.value), str(error.value)


def run_python(package, code, *arguments):
    folder = pathlib.Path(package.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_torch(package):
    out = run_python(
        package,
        """
        import sys
        sys.modules["torch"] = None  # as where it is not installed
        import hadal
        try:
            hadal.torch
        except ImportError as error:
            print(error)
        """,
    )
    assert out.startswith("hadal.torch needs PyTorch: pip install torch")


@pytest.fixture
def documented(make, tmp_path, monkeypatch):
    """What the examples of documents may use."""
    (tmp_path / "deepseek").mkdir()
    for version, name in (("v1", "llama"), ("v2", "deepseek_v2_lite")):
        (tmp_path / "deepseek" / version).symlink_to(read_golden(GOLDEN / name).model)
    monkeypatch.setenv("HADAL_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return {"ids": torch.arange(24).view(2, 12), "images": torch.randn(2, 30, generator=torch.Generator().manual_seed(1))}


def test_the_page_is_true(hadal_torch, documented):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pytorch.md").read_text(), re.S)
    assert len(blocks) >= 4
    for block in blocks:
        exec(block, documented)


def test_the_docstrings_are_true(hadal_torch, make, tmp_path):
    names = {"torch": torch, "path": read_golden(GOLDEN / "llama").model, "folder": tmp_path / "saved", "model": make("llama")}
    names |= vars(hadal_torch)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(hadal_torch, globs=names):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0 and runner.tries > 5


# Many ranks.

RANK = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hadal.torch import DeepSeekModel

def learn():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(DeepSeekModel.from_pretrained(sys.argv[1]))
    steps = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(10):
        ids = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(7))[rank::ranks]
        steps.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        steps.step()
        mean = loss.detach()
        dist.all_reduce(mean)
        if rank == 0:
            print(mean.item() / ranks)


dist.init_process_group("gloo")
learn()  # no model is left that holds the group, whose threads end here and not in the middle of the interpreter's end
dist.destroy_process_group()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(package, ranks, *command):
    folder = pathlib.Path(package.__file__).parents[1]
    how = ["--nproc-per-node", str(ranks), "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *how, *map(str, command)],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("name", ["llama", "deepseek_v3"])
def test_two_ranks_learn_as_one(hadal_torch, package, name, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    one, two = ([float(line) for line in launch(package, ranks, script, GOLDEN / name / "model").split()] for ranks in (1, 2))
    assert len(one) == 10 and one[-1] < one[0]
    np.testing.assert_allclose(two, one, atol=2e-6)
