#!/usr/bin/env python3
"""Writes the tiny checkpoints of cases.py with the logits of the published implementation.

  make.py                 rewrite the committed cases beside this file
  make.py --out DIR       write every case into DIR, the uncommitted ones too
  make.py --check         make the committed cases again in a temporary folder and compare
  make.py --search        find new seeds where the recorded one no longer serves

A case is a folder: `model/` (Hugging Face layout) or `model.gguf`, and `golden.safetensors` with
  ids        I64 [n]         the input
  logits     F32 [n, vocab]  of the published implementation, in float32 on the stored weights
  greedy     I64 [64]        the most likely continuation of the first 8 ids
  tolerance  F32 [1]         largest |difference| allowed
  margins    F32 [2]         smallest gap of any router or indexer choice for `ids`; smallest top-two gap along `greedy`
  draft      F32 [n-1, vocab]  where there is a draft layer: its logits of token i + 2, by reference.py
Logits are transformers' where it has the family, and then reference.py must agree; otherwise reference.py's.
"""

import argparse
import filecmp
import json
import math
import pathlib
import shutil
import sys
import tempfile

import gguf_file
import tokenizer
import torch
import weights
from cases import CASES, END, EXACT, VOCAB
from reference import Reference, magnitude
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
SEEDS = HERE / "seeds.json"
PROMPT = list(tokenizer.PROMPT.encode())
ROWS, STEPS = 32, 64


def read_seeds():
    return json.loads(SEEDS.read_text()) if SEEDS.exists() else {}


def input_ids(seed):
    drawn = torch.randint(0, VOCAB, (ROWS - len(PROMPT),), generator=torch.Generator().manual_seed(seed))
    return PROMPT + drawn.tolist()


def stored_and_meant(case, seed):
    tensors = weights.draw(case.config, seed, case.draft)
    return gguf_file.store(case, tensors, seed) if case.layout == "gguf" else weights.store(tensors, case.dtype)


def own_weights(case, meant):
    """Without the multi-token prediction layer."""
    return {n: t for n, t in meant.items() if not n.startswith(f"model.layers.{case.config['num_hidden_layers']}.")}


def published_logits(case, meant, ids):
    """Of transformers, in float32; None where it has no such family."""
    if case.config["model_type"] == "deepseek":
        return None
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = {k: v for k, v in case.config.items() if k not in ("quantization_config", "num_nextn_predict_layers")}
    config["num_nextn_predict_layers"] = 0
    scaling = config.get("rope_scaling")
    if scaling and "attn_factor" in scaling:  # transformers ignores the key; the product is what its authors meant
        config["rope_scaling"] = scaling | {"attention_factor": magnitude(scaling["factor"], 1) * scaling["attn_factor"]}
    with tempfile.TemporaryDirectory() as folder:
        save_file(own_weights(case, meant), f"{folder}/model.safetensors", metadata={"format": "pt"})
        pathlib.Path(folder, "config.json").write_text(json.dumps(config))
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", output_loading_info=True
        )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"], (case.name, report)
    with torch.no_grad():
        return model.eval()(torch.tensor([ids]), use_cache=False).logits[0].float()


def serves(case, model, ids):
    """(margins, greedy) when no choice that the test depends on is a coin toss."""
    exact = case.tolerance == EXACT
    model.margins.clear()
    model.logits(ids)
    choice = min(model.margins, default=math.inf)
    if choice < (3e-4 if exact else 1e-2):
        return None
    greedy, gap = model.greedy(PROMPT, STEPS)
    along = min(model.margins, default=math.inf)
    if exact and (gap < 4e-3 or along < 5e-5):
        return None
    if END in greedy or len(set(greedy)) < 12:
        return None
    return (choice, gap), greedy


def find_seed(case, first):
    for seed in range(first, first + 3000):
        _, meant = stored_and_meant(case, seed)
        if serves(case, Reference(case.config, own_weights(case, meant)), input_ids(seed)):
            return seed
    sys.exit(f"{case.name}: no seed from {first} on serves")


def golden_of(case, seed, meant):
    ids, model = input_ids(seed), Reference(case.config, own_weights(case, meant))
    found = serves(case, model, ids)
    if not found:
        sys.exit(f"{case.name}: seed {seed} no longer serves; run make.py --search")
    (choice, gap), greedy = found
    ours, theirs = model.logits(ids), published_logits(case, meant, ids)
    if theirs is not None:
        difference = (ours - theirs).abs().max().item()
        print(f"{case.name:24} seed {seed:4}  |reference - transformers| {difference:.1e}  spread {ours.std():.2f}  choice {choice:.1e}  greedy {gap:.1e}")
        assert difference < 5e-5, f"{case.name}: reference.py and transformers differ by {difference}"
    else:
        print(f"{case.name:24} seed {seed:4}  reference alone  spread {ours.std():.2f}  choice {choice:.1e}  greedy {gap:.1e}")
    return {
        "ids": torch.tensor(ids),
        "logits": (ours if theirs is None else theirs).contiguous(),
        "greedy": torch.tensor(greedy),
        "tolerance": torch.tensor([case.tolerance]),
        "margins": torch.tensor([min(choice, 1e9), gap]),
    } | ({"draft": Reference(case.config, meant).draft(ids).contiguous()} if case.draft else {})


def halves(tensors):
    """Two shards, the second tensor apart from the first: scales may lie in another file than their weights."""
    names = list(tensors)
    return [{n: tensors[n] for n in names[0::2]}, {n: tensors[n] for n in names[1::2]}]


def write_model(case, stored, folder):
    if case.layout == "gguf":
        return gguf_file.write(case, stored, folder / "model.gguf")
    model = folder / "model"
    model.mkdir()
    dtype = {"F32": "float32", "F16": "float16"}.get(case.dtype, "bfloat16")
    (model / "config.json").write_text(json.dumps(case.config | {"torch_dtype": dtype}, indent=1) + "\n")
    if case.tokenizer:
        tokenizer.write_json(model)
    stem, ending = ("pytorch_model", "bin") if case.layout.startswith("bin") else ("model", "safetensors")
    save = (lambda t, p: torch.save(t, p)) if ending == "bin" else (lambda t, p: save_file(t, p, metadata={"format": "pt"}))
    stored = {name: tensor.contiguous() for name, tensor in stored.items()}
    if case.layout in ("safetensors", "bin"):
        return save(stored, model / f"{stem}.{ending}")
    where = {}
    for index, part in enumerate(halves(stored), 1):
        name = f"{stem}-{index:05}-of-00002.{ending}"
        save(part, model / name)
        where |= dict.fromkeys(part, name)
    if case.layout != "shards":
        total = sum(t.numel() * t.element_size() for t in stored.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (model / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=1) + "\n")


def write_case(case, seed, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stored, meant = stored_and_meant(case, seed)
    golden = golden_of(case, seed, meant)
    write_model(case, stored, folder)
    save_file(golden, folder / "golden.safetensors")


def differences(old, new):
    """What is not as it was: files of the model byte for byte, logits within rounding, the rest exactly."""
    files = sorted({p.relative_to(root).as_posix() for root in (old, new) for p in root.rglob("*") if p.is_file()} - {"golden.safetensors"})
    for name in files:
        if not (old / name).exists() or not (new / name).exists() or not filecmp.cmp(old / name, new / name, shallow=False):
            yield name
    a, b = load_file(old / "golden.safetensors"), load_file(new / "golden.safetensors")
    for name in ("ids", "greedy", "tolerance"):
        if not torch.equal(a[name], b[name]):
            yield name
    for name in ("logits", "draft"):
        if (name in a) != (name in b) or name in a and (a[name] - b[name]).abs().max() > 2e-5:
            yield name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--only", help="cases whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = read_seeds()
    chosen = [c for c in CASES if not options.only or options.only in c.name]
    if options.search:
        for case in chosen:
            seeds[case.name] = find_seed(case, seeds.get(case.name, 1))
            print(case.name, seeds[case.name], flush=True)
            SEEDS.write_text(json.dumps({c.name: seeds[c.name] for c in CASES if c.name in seeds}, indent=1) + "\n")
        return
    if not options.out:
        chosen = [c for c in chosen if c.small]
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch) if options.check else options.out or HERE
        changed = []
        for case in chosen:
            write_case(case, seeds[case.name], root / case.name)
            if options.check:
                changed += [f"{case.name}: {what}" for what in differences(HERE / case.name, root / case.name)]
    if changed:
        sys.exit("not as committed:\n  " + "\n  ".join(changed))


if __name__ == "__main__":
    main()
