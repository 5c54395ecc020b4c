"""Adapters: the model with merged weights is the truth; peft's own files and arithmetic where it is installed."""

import json

import adapters
import numpy as np
import pytest
from conftest import GOLDEN, read_golden
from safetensors.numpy import load_file

FOLDERS = ["llama", "qwen2", "qwen3_yarn", "deepseek", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3", "deepseek_v32"]
CLOSE = 1e-4  # of logits around 1: the order of additions differs, nothing else


def model_of(name):
    return read_golden(GOLDEN / name).model


def ids_of(count, seed=1):
    return np.random.default_rng(seed).integers(0, 300, count).tolist()


def distance(a, b):
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("name", FOLDERS)
def test_every_linear_layer(hadal, tmp_path, name):
    model, ids = model_of(name), ids_of(32)
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(model)), 1)
    assert "lm_head" in pairs
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(model, tmp_path / "merged", pairs)
    expected = hadal.logits(truth, ids, tmp_path)
    found = hadal.logits(model, ids, tmp_path, "--adapter", adapter)
    assert distance(found, expected) < CLOSE
    assert distance(hadal.logits(model, ids, tmp_path), expected) > 1
    assert np.array_equal(found, hadal.logits(model, ids, tmp_path, "--adapter", adapter, "--chunk", 7, "--threads", 1)), "chunks change nothing"


def test_tied_head(hadal, tmp_path):
    """The head has an adapter, the embedding that it is made of has not."""
    weights = adapters.weights_of(model_of("llama"))
    del weights["lm_head.weight"]
    model, ids = adapters.write_model(model_of("llama"), tmp_path / "tied", weights), ids_of(12)
    pairs = adapters.draw({"lm_head": weights["model.embed_tokens.weight"].shape}, 2)
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(model, tmp_path / "merged", pairs)
    expected = hadal.logits(truth, ids, tmp_path)
    assert distance(hadal.logits(model, ids, tmp_path, "--adapter", adapter), expected) < CLOSE
    assert distance(hadal.logits(model, ids, tmp_path), expected) > 1


def layer_kinds():
    """Each kind of linear layer by itself, so that none can hide behind another."""
    for name in ("llama", "deepseek_v2_lite", "deepseek_v3", "deepseek_v32"):
        modules = adapters.linear_layers(adapters.shapes_of(model_of(name)))
        for pattern in sorted({("shared_experts." if "shared" in m else "experts." if "experts" in m else "") + m.split(".")[-1] for m in modules}):
            yield name, pattern


@pytest.mark.parametrize("name, kind", list(layer_kinds()))
def test_one_kind_of_layer(hadal, tmp_path, name, kind):
    model, ids = model_of(name), ids_of(24)
    modules = adapters.linear_layers(adapters.shapes_of(model))
    expert, last = kind.rpartition(".")[::2]
    chosen = {m: s for m, s in modules.items() if m.split(".")[-1] == last and (f".{expert}." in m if expert else "experts" not in m)}
    pairs = adapters.draw(chosen, 3, size=1)
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(model, tmp_path / "merged", pairs)
    expected = hadal.logits(truth, ids, tmp_path)
    assert distance(hadal.logits(model, ids, tmp_path, "--adapter", adapter), expected) < CLOSE
    assert distance(hadal.logits(model, ids, tmp_path), expected) > 100 * CLOSE


@pytest.mark.parametrize("name", ["deepseek_v2_lite", "deepseek_v2", "deepseek_v3"])
@pytest.mark.parametrize("cache, close", [("f32", 1e-5), ("i8", 0.05)])
def test_both_algorithms_of_latent_attention(hadal, tmp_path, name, cache, close):
    """200 rows at once are expanded, 16 at a time are attended to as latents."""
    model, ids = model_of(name), ids_of(200)
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(model), ("kv_b_proj", "q_proj", "q_b_proj")), 1, size=1)
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(model, tmp_path / "merged", pairs)
    expected = hadal.logits(truth, ids, tmp_path, "--cache", cache)
    middle = lambda found: float(np.median(np.abs(found - expected)))  # an expert may be another where keys are rounded
    assert middle(hadal.logits(model, ids, tmp_path, "--cache", cache)) > 0.2
    for chunk in (512, 16):
        assert middle(hadal.logits(model, ids, tmp_path, "--adapter", adapter, "--cache", cache, "--chunk", chunk)) < close


@pytest.mark.parametrize("weights, share", [("bf16", 0.01), ("w8", 0.05), ("w4", 0.3)])
@pytest.mark.parametrize("name", ["llama", "deepseek_v2_lite"])
def test_beside_packed_weights(hadal, tmp_path, name, weights, share):
    """The adapter stays in float32 beside integers; what is left of its effect is that of rounding the base."""
    model, ids = model_of(name), ids_of(24)
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(model), (*adapters.ATTENTION, *adapters.MLP)), 1, size=1)
    pairs = adapters.matching(r"self_attn|layers\.0|shared", pairs)  # what experts a row goes to must not change
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(model, tmp_path / "merged", pairs)
    base, expected = hadal.logits(model, ids, tmp_path), hadal.logits(truth, ids, tmp_path)
    found = hadal.logits(model, ids, tmp_path, "--adapter", adapter, "--weights", weights)
    error = np.linalg.norm(found - expected) / np.linalg.norm(base - expected)
    assert error < share, error


def test_scales(hadal, tmp_path):
    model, ids = model_of("llama"), ids_of(12)
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(model), adapters.ATTENTION), 1, rank=4)
    alphas = {"layers.1.self_attn.q_proj": 1, "v_proj": 3, r"model\.layers\.\d+\.self_attn\.k_pro[jk]": 10}

    def check(scale, **config):
        adapter, truth = tmp_path / f"adapter{len(list(tmp_path.iterdir()))}", tmp_path / f"merged{len(list(tmp_path.iterdir()))}"
        adapters.write(adapter, pairs, **config)
        expected = hadal.logits(adapters.write_merged(model, truth, pairs, scale=scale), ids, tmp_path)
        assert distance(hadal.logits(model, ids, tmp_path, "--adapter", adapter), expected) < CLOSE

    check(lambda module, rank: 2 / rank, lora_alpha=2)
    check(lambda module, rank: 2 / rank**0.5, lora_alpha=2, use_rslora=True)
    own = lambda module: 1 if module.endswith("1.self_attn.q_proj") else 3 if "v_proj" in module else 10 if "k_proj" in module else 2
    check(lambda module, rank: own(module) / rank, lora_alpha=2, alpha_pattern=alphas)


def test_ranks_and_types_may_differ(hadal, tmp_path):
    model, ids = model_of("llama"), ids_of(12)
    layers = adapters.linear_layers(adapters.shapes_of(model))
    pairs = {module: adapters.draw({module: shape}, i, rank=1 + i % 20)[module] for i, (module, shape) in enumerate(layers.items())}
    kinds = (np.float32, np.float16)
    pairs = {module: (down.astype(kinds[i % 2]), up.astype(kinds[i // 2 % 2])) for i, (module, (down, up)) in enumerate(pairs.items())}
    adapter = adapters.write(tmp_path / "adapter", pairs, infix=".default", lora_alpha=4)
    truth = adapters.write_merged(model, tmp_path / "merged", pairs, scale=lambda module, rank: 4 / rank)
    assert distance(hadal.logits(model, ids, tmp_path, "--adapter", adapter), hadal.logits(truth, ids, tmp_path)) < CLOSE


@pytest.mark.parametrize("name", ["gguf_llama", "gguf_qwen2", "gguf_deepseek2_lite"])
def test_beside_gguf(hadal, tmp_path, name):
    """Files that store rows in another order than the published checkpoint take adapters of the published one."""
    pytest.importorskip("torch")
    pytest.importorskip("gguf")
    import make
    from cases import CASES
    from safetensors.torch import save_file

    case = next(case for case in CASES if case.name == name)
    meant = make.stored_and_meant(case, make.read_seeds()[name])[1]
    same = tmp_path / "same"
    same.mkdir()
    save_file({n: t.contiguous() for n, t in meant.items()}, same / "model.safetensors", metadata={"format": "pt"})
    (same / "config.json").write_text(json.dumps(case.config))
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(same)), 1)
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(same, tmp_path / "merged", pairs)
    ids = ids_of(16)
    found, expected = hadal.logits(model_of(name), ids, tmp_path, "--adapter", adapter), hadal.logits(truth, ids, tmp_path)
    assert distance(found, expected) < max(CLOSE, 0.02 * float(np.abs(expected).max()) if case.dtype != "F32" else 0)
    assert distance(hadal.logits(model_of(name), ids, tmp_path), expected) > 1


PEFT_TARGETS = {
    "llama": [*adapters.ATTENTION[:4], *adapters.MLP, "lm_head"],
    "qwen2": [*adapters.ATTENTION[:4], *adapters.MLP],
    "deepseek_v2": ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "lm_head"],
    "deepseek_v3": ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", *adapters.MLP],  # experts: fused tensors
}


@pytest.mark.parametrize("name", PEFT_TARGETS)
def test_peft_wrote_it(hadal, tmp_path, name):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model, ids = model_of(name), ids_of(24)
    plain = adapters.write_model(model, tmp_path / "plain", adapters.weights_of(model), num_nextn_predict_layers=0)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    settings = peft.LoraConfig(r=4, lora_alpha=6, target_modules=PEFT_TARGETS[name], rank_pattern={"o_proj": 2}, alpha_pattern={"o_proj": 9},
                               use_rslora=name == "qwen2", init_lora_weights=False)  # fmt: skip
    wrapped = peft.get_peft_model(base, settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        wrapped.save_pretrained(tmp_path / "adapter")
        expected = wrapped.eval()(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    found = hadal.logits(model, ids, tmp_path, "--adapter", tmp_path / "adapter")
    assert distance(found, expected) < 5 * CLOSE
    assert distance(hadal.logits(model, ids, tmp_path), expected) > 0.5
    if name == "deepseek_v3":
        assert any("experts.base_layer" in tensor for tensor in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_refusals(hadal, tmp_path):
    model = model_of("llama")
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(model), ("q_proj",)), 1)
    module, (down, up) = next(iter(pairs.items()))

    def complaint(changed=pairs, **config):
        adapter = adapters.write(tmp_path / "bad", changed, **config)
        done = hadal.run("logits", model, "--ids", "1,2", "--out", tmp_path / "x.npy", "--adapter", adapter, expect=1)
        assert done.stderr.startswith("hadal: ") or "error" in done.stderr, done.stderr
        return done.stderr

    assert "use_dora: DoRA is not supported" in complaint(use_dora=True)
    assert "modules_to_save: modules trained whole" in complaint(modules_to_save=["lm_head"])
    assert 'bias: expected "none"' in complaint(bias="all")
    assert 'peft_type: expected "LORA", found "IA3"' in complaint(peft_type="IA3")
    assert "init_lora_weights" in complaint(init_lora_weights="pissa_niter_4")
    assert "lora_alpha: expected a number" in complaint(lora_alpha="much")
    assert "alpha_pattern" in complaint(alpha_pattern={"q_proj(": 1})
    assert "model.layers.0.self_attn.x_proj: the model has no such linear layer" in complaint(pairs | {"model.layers.0.self_attn.x_proj": (down, up)})
    assert "model.layers.77" in complaint({"model.layers.77.self_attn.q_proj": (down, up)})
    assert "expected a linear layer" in complaint({"model.norm": (down, up)})
    assert f"expected shape [3, {down.shape[1]}] for this model, found [3, 5]" in complaint({module: (down[:, :5], up)})
    assert "lora_B: expected shape" in complaint({module: (down, up[:, :2])})
    assert "expected finite numbers, found" in complaint({module: (down * np.float32("nan"), up)})
    assert "found I32" in complaint({module: (down.astype(np.int32), up)})
    assert "expected tensors called base_model.model.MODULE" in complaint(prefix="transformer.")
    assert "lora_B is missing, lora_A is there" in complaint_of_half(hadal, model, tmp_path, module, down)
    assert "adapter_config.json" in hadal.run("logits", model, "--ids", "1", "--out", tmp_path / "x.npy", "--adapter", tmp_path, expect=1).stderr


def complaint_of_half(hadal, model, folder, module, down):
    from safetensors.numpy import save_file

    adapter = adapters.write(folder / "half", {module: (down, down)})
    save_file({f"base_model.model.{module}.lora_A.weight": down}, adapter / "adapter_model.safetensors")
    return hadal.run("logits", model, "--ids", "1", "--out", folder / "x.npy", "--adapter", adapter, expect=1).stderr


def test_generate_and_perplexity_take_it(hadal, tmp_path):
    model = model_of("llama")
    pairs = adapters.draw(adapters.linear_layers(adapters.shapes_of(model)), 1)
    adapter, truth = adapters.write(tmp_path / "adapter", pairs), adapters.write_merged(model, tmp_path / "merged", pairs)

    def reply(*arguments):
        return json.loads(hadal.run("generate", *arguments, "--prompt-ids", "1,2,3,4", "--max-tokens", 12, "--temperature", 0, "--json").stdout)["ids"]

    assert reply(model, "--adapter", adapter) == reply(truth) != reply(model)
