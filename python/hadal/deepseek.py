"""DeepSeekModel: the names that users of transformers know, over hadal.Model. torch is used where a tensor is given, else never imported.

>>> from hadal import DeepSeekModel
>>> model = DeepSeekModel.from_pretrained(path)
>>> model.config.attention_window = 512
>>> model.generate([[1, 2, 3]], max_new_tokens=2).shape
(1, 5)
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _hadal
from ._hadal import Error
from .config import Config
from .model import Model, Stream, load
from .tokenizer import Tokenizer, as_ids

# The three generations that articles write as deepseek/v1 to deepseek/v3, as the published checkpoints nearest to them.
ARTICLE_NAMES = {
    "deepseek/v1": "deepseek-ai/deepseek-coder-1.3b-instruct",
    "deepseek/v2": "deepseek-ai/DeepSeek-V2-Lite-Chat",
    "deepseek/v3": "deepseek-ai/DeepSeek-V3",
}


class DeepSeekConfig(Config):
    """A hadal.Config that also answers to the names in config.json."""

    model_type = property(lambda self: self.family)
    vocab_size = property(lambda self: self.vocab)
    hidden_size = property(lambda self: self.dim)
    intermediate_size = property(lambda self: self.ffn_dim)
    num_hidden_layers = property(lambda self: self.layers)
    num_attention_heads = property(lambda self: self.heads)
    num_key_value_heads = property(lambda self: self.kv_heads or self.heads)
    max_position_embeddings = property(lambda self: self.context)
    rms_norm_eps = property(lambda self: self.norm_eps)
    tie_word_embeddings = property(lambda self: self.tied_head)
    n_routed_experts = property(lambda self: self.experts or None)
    num_experts_per_tok = property(lambda self: self.active_experts or None)
    bos_token_id = property(lambda self: self.begin_token if self.begin_token >= 0 else None)
    eos_token_id = property(lambda self: self.end_tokens[0] if len(self.end_tokens) == 1 else self.end_tokens or None)


@dataclass
class DeepSeekOutput:
    """What the forward pass gives. logits: [batch, tokens, vocab], float32, a tensor where a tensor was given."""

    logits: Any

    def __getitem__(self, which: int | str) -> Any:
        return {0: self.logits, "logits": self.logits}[which]


class _Batch:
    """input_ids as rows of numpy, and the way back to what they came as: a tensor, an array or lists."""

    def __init__(self, input_ids: Any, attention_mask: Any = None) -> None:
        self.torch = sys.modules["torch"] if hasattr(input_ids, "detach") else None
        self.is_list = isinstance(input_ids, (list, tuple))
        rows = input_ids.detach().cpu().numpy() if self.torch else input_ids
        if self.is_list and (not rows or not isinstance(rows[0], (list, tuple, np.ndarray))) or getattr(rows, "ndim", 2) == 1:
            rows = [rows]
        self.rows = [as_ids(row, "input_ids") for row in rows]
        self.given = self.rows
        if attention_mask is not None:
            masks = attention_mask.detach().cpu().numpy() if hasattr(attention_mask, "detach") else attention_mask
            masks = [np.asarray(mask).astype(bool) for mask in ([masks] if np.ndim(masks) == 1 else masks)]
            if [mask.shape for mask in masks] != [row.shape for row in self.rows]:
                raise Error(f"attention_mask: expected the shape of input_ids, found {[mask.shape for mask in masks]}")
            for mask in masks:
                if not mask.all() and np.diff(np.flatnonzero(mask)).max(initial=1) > 1:
                    raise Error("attention_mask: expected padding in front or behind, found masked tokens between others")
            self.rows = [row[mask] for row, mask in zip(self.rows, masks)]
            self.masks = masks
        else:
            self.masks = [np.ones(row.shape, bool) for row in self.rows]
        for i, row in enumerate(self.rows):
            if row.size == 0:
                raise Error(f"input_ids: expected at least one token in each row, found none in row {i}")

    def back(self, values: np.ndarray) -> Any:
        return self.torch.from_numpy(values) if self.torch else values


class DeepSeekModel:
    """A causal language model, evaluated on the CPU.

    from_pretrained(name or folder) loads one, model.config.attention_window may be set at any time, generate() and model(...) take lists,
    numpy arrays or torch tensors of ids and give back the same kind. `model.tokenizer` is the model's own; the hadal.Model beneath it, with
    streams, chats and asyncio, is `model.engine`.
    """

    def __init__(self, engine: Model) -> None:
        self.engine = engine
        self.config = engine.config = DeepSeekConfig(engine._core.config(), engine.config._wanted, engine._change_masks)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        torch_dtype: Any = None,
        dtype: Any = None,
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        device_map: Any = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> DeepSeekModel:
        """Loads a model: a folder, a .gguf file, or a name, "owner/name" on a hub.

        A name is looked for in the cache folder (hadal.cache_folder()) and fetched from the hub when it is not there, unless
        local_files_only or HF_HUB_OFFLINE=1 says no. "deepseek/v1" to "deepseek/v3" are a folder of that name in the cache, else the published checkpoints
        that are nearest to what articles call so: deepseek-coder-1.3b-instruct, DeepSeek-V2-Lite-Chat, DeepSeek-V3.
        dtype: a torch dtype, its name, or a type of hadal ("w4"); load_in_8bit and load_in_4bit are "w8" and "w4". Code in a repository is
        never run, so trust_remote_code changes nothing. options: see hadal.load.
        """
        if device_map not in (None, "cpu", "auto") and getattr(device_map, "type", None) != "cpu":
            raise Error(f'device_map: expected "cpu" or "auto", this runs on the CPU; found {device_map!r}')
        name = os.fspath(pretrained_model_name_or_path)
        weights = "w4" if load_in_4bit else "w8" if load_in_8bit else _weights_of(torch_dtype if dtype is None else dtype)
        offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        try:
            return cls(load(_find(name, offline), weights, **options))
        except TypeError as error:
            raise TypeError(str(error).replace("load()", "from_pretrained()")) from None

    def generate(
        self,
        input_ids: Any = None,
        *,
        attention_mask: Any = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        num_return_sequences: int = 1,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        stop_strings: str | Sequence[str] | None = None,
        seed: int | None = None,
        num_beams: int = 1,
        use_cache: bool = True,
        streamer: Any = None,
    ) -> Any:
        """[batch * num_return_sequences, prompt + reply]: the prompts with their replies, padded behind with pad_token_id.

        Greedy unless do_sample; without either, as the checkpoint's generation_config.json says. The end token is part of the reply, as in
        transformers. max_new_tokens: 256 where neither it nor max_length is given. streamer: put() gets ids as they come; end() is called.
        Rows padded in front are read without their padding.
        """
        if num_beams != 1:
            raise Error(f"num_beams: expected 1, there is no beam search here; found {num_beams}")
        if num_return_sequences < 1:
            raise Error(f"num_return_sequences: expected 1 or more, found {num_return_sequences}")
        batch = _Batch(input_ids, attention_mask)
        if any(not mask[-1] for mask in batch.masks):
            raise Error("attention_mask: expected padding in front of prompts, found it behind one")
        if streamer is not None and len(batch.rows) * num_return_sequences != 1:
            raise Error("streamer: expected one prompt and one reply")
        ends = self.config.end_tokens if eos_token_id is None else [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
        how = self._sampling(do_sample, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repetition_penalty)
        how |= {"stop_tokens": ends, "end_included": True, "stop": stop_strings}
        streams = []
        for row in batch.rows:
            for i in range(num_return_sequences):
                most = max_new_tokens if max_new_tokens is not None else max_length - len(row) if max_length is not None else 256
                streams.append(self.engine.stream(row, max_tokens=most, seed=None if seed is None else seed + i, **how))
        if streamer is not None:
            streamer.put(batch.back(batch.given[0].astype(np.int64)))
            _pass_on(streams[0], streamer, batch)
        replies = [stream.read().ids for stream in streams]
        whole = [[*batch.given[i // num_return_sequences].tolist(), *ids] for i, ids in enumerate(replies)]
        longest = max(map(len, whole))
        pad = pad_token_id if pad_token_id is not None else ends[0] if ends else 0
        return batch.back(np.array([[*row, *[pad] * (longest - len(row))] for row in whole], np.int64))

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **ignored: Any) -> DeepSeekOutput:
        """The logits of every token: DeepSeekOutput with logits [batch, tokens, vocab]; rows of padding are zero."""
        if unknown := sorted(set(ignored) - {"use_cache", "return_dict"}):
            raise TypeError(f"forward() takes input_ids and attention_mask, not {', '.join(unknown)}")
        batch = _Batch(input_ids, attention_mask)
        if len({row.shape for row in batch.given}) > 1:
            raise Error("input_ids: expected rows of one length; pad them and give an attention_mask")
        out = np.zeros((len(batch.rows), batch.given[0].size, self.config.vocab), np.float32)
        for row, mask, logits in zip(batch.rows, batch.masks, out):
            logits[mask] = self.engine.logits(row)
        return DeepSeekOutput(batch.back(out))

    __call__ = forward

    def _sampling(self, do_sample: bool | None, **given: Any) -> dict[str, Any]:
        how = {name: value for name, value in given.items() if value is not None}
        if do_sample is None:  # as the checkpoint's author says
            return how
        if not do_sample:
            return {"temperature": 0.0} | {name: value for name, value in how.items() if name == "repeat_penalty"}
        recommended = self.engine._sampling if self.engine._sampling["temperature"] > 0 else {}
        return {"temperature": 1.0, "top_k": 50} | recommended | how

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def device(self) -> Any:
        return sys.modules["torch"].device("cpu") if "torch" in sys.modules else "cpu"

    def num_parameters(self) -> int:
        return self.config.parameters

    def eval(self) -> DeepSeekModel:
        return self

    def to(self, device: Any = "cpu", *_: Any, **__: Any) -> DeepSeekModel:
        """Stays on the CPU. Error: another device was asked for."""
        if str(device).split(":")[0] != "cpu":
            raise Error(f'to: expected "cpu", found {device!r}; dtypes are chosen by from_pretrained(..., dtype=...)')
        return self

    def __repr__(self) -> str:
        return f"DeepSeekModel({self.engine.path}: {self.config.family}, {self.config.parameters:,} parameters)"


def _weights_of(dtype: Any) -> str | None:
    names = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "half": "f16", "float": "f32"}
    name = str(dtype).removeprefix("torch.")
    return None if dtype is None or name == "auto" else names.get(name, name)


def _find(name: str, offline: bool) -> str:
    """A path that exists, a name in the cache, what the hub has. Error says what was tried and what to do next."""
    cache = pathlib.Path(_hadal.cache_folder())
    names = [name, ARTICLE_NAMES[name]] if name in ARTICLE_NAMES else [name]
    for one in names:
        try:
            return _hadal.resolve(one)
        except Error:
            if (cache / one).exists() or pathlib.Path(one).exists():
                raise  # there is something, and it is no model
    wanted = names[-1]
    steps = f'`hadal pull {wanted}` (or hadal.pull("{wanted}")) fetches it where there is a network; '
    steps += "a folder or a .gguf file is given by its path"
    if name in ARTICLE_NAMES:
        steps += f"; or put a model of your own, or a link to one, at {cache / name}"
    tried = f"tried the path, {' and '.join(str(cache / one) for one in names)}"
    if offline or ("/" not in wanted and wanted not in _hadal.known_models()):
        raise Error(f'there is no model "{name}" here: {tried}; {steps}')
    try:
        return _hadal.pull(wanted, 2)
    except Error as error:
        raise Error(f'there is no model "{name}" here: {tried} and the hub ({error}); {steps}') from None


def _pass_on(stream: Stream, streamer: Any, batch: _Batch) -> None:
    """A reply to transformers' streamers as it comes."""
    seen = 0
    while not stream.ended:
        next(stream, None)
        if ids := stream.reply.ids[seen:]:
            streamer.put(batch.back(np.array(ids, np.int64)))
            seen += len(ids)
    streamer.end()
