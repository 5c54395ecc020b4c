"""LoRA adapters as the peft package lays them out, with random numbers, and the models that they make of others."""

import json
import re
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "wq_b", "wk", "weights_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ALL = (*ATTENTION, *MLP, "lm_head")


def linear_layers(shapes, targets=ALL):
    """Module -> [out, in] of those whose last name is among the targets."""
    return {name[: -len(".weight")]: shape for name, shape in shapes.items() if name.endswith(".weight") and name.split(".")[-2] in targets}


def draw(layers, seed, rank=3, size=0.5):
    """Module -> (A, B) whose product with alpha = rank is `size` times as large as a weight of the tiny models."""
    generator = np.random.default_rng(seed)
    pairs = {}
    for module, (out, inside) in layers.items():
        down = generator.standard_normal((rank, inside), np.float32) * inside**-0.5
        up = generator.standard_normal((out, rank), np.float32) * size * rank**-0.5
        pairs[module] = (down, up)
    return pairs


def write(folder, pairs, prefix="base_model.model.", infix="", **config):
    folder.mkdir(parents=True, exist_ok=True)
    rank = next(iter(pairs.values()))[0].shape[0]
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none", "use_rslora": False,
                "use_dora": False, "modules_to_save": None, "alpha_pattern": {}, "rank_pattern": {}} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors = {}
    for module, (down, up) in pairs.items():
        tensors[f"{prefix}{module}.lora_A{infix}.weight"] = np.ascontiguousarray(down)
        tensors[f"{prefix}{module}.lora_B{infix}.weight"] = np.ascontiguousarray(up)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def merged(tensors, pairs, scale=lambda module, rank: 1.0):
    """The weights that hold base and adapter, computed in double precision."""
    out = dict(tensors)
    for module, (down, up) in pairs.items():
        name = module + ".weight"
        base = tensors[name] if name in tensors else tensors["model.embed_tokens.weight"]  # a tied head
        delta = scale(module, down.shape[0]) * (up.astype(np.float64) @ down.astype(np.float64))
        out[name] = (base.astype(np.float64) + delta).astype(np.float32)
    return out


def weights_of(model):
    tensors = {}
    for path in sorted(model.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def write_merged(model, folder, pairs, **more):
    """The model `model` with the merged weights."""
    return write_model(model, folder, merged(weights_of(model), pairs, **more))


def write_model(model, folder, tensors, **config):
    """`model` with other weights, in one file."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    old = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(old | {"tie_word_embeddings": "lm_head.weight" not in tensors} | config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shapes_of(model):
    return {name: tensor.shape for name, tensor in weights_of(model).items()}


def matching(pattern, pairs):
    return {module: pair for module, pair in pairs.items() if re.search(pattern, module)}
