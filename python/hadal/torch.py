"""DeepSeek models that PyTorch trains: parameters are ordinary torch Parameters, the forward pass is hadal's in C++.

>>> from hadal.torch import DeepSeekModel
>>> model = DeepSeekModel.from_pretrained(path)
>>> out = model(torch.tensor([[1, 2, 3, 4]]), labels=torch.tensor([[1, 2, 3, 4]]))
>>> out.loss.backward()
>>> torch.optim.AdamW(model.parameters(), lr=1e-3).step()
>>> model.save_pretrained(folder)                  # as published: hadal.load(folder) and `hadal chat folder` run it

Parameters and buffers have the names of the published checkpoint, so `state_dict()` is one. They are handed to C++ with every pass, not copied:
any optimizer, `load_state_dict`, `copy.deepcopy`, `.to(dtype)`, `torch.autocast("cpu")`, DistributedDataParallel work as with any module.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("hadal.torch needs PyTorch: pip install torch==2.13.0; the rest of hadal runs without it") from error
from torch import Tensor, nn

try:
    from . import _train
except ImportError as error:
    _HOW = "from a clone, `script/build release hadal_python`, or `pip install --no-build-isolation -C cmake.define.HADAL_TRAIN=ON .`"
    raise ImportError(f"hadal was built without its trainer, or for another torch than {torch.__version__} ({error}): {_HOW}") from error

from ._hadal import Error, Masks
from .deepseek import DeepSeekConfig, _find

__all__ = ["DeepSeekConfig", "DeepSeekModel", "Memory", "Output", "Routing"]

_MASKS = ("window", "sinks", "top_blocks")
IGNORED = -100  # a label that no loss is taken of, as in torch.nn.functional.cross_entropy


class Memory(_train.Memory):
    """What earlier segments left for the next: keys and values of the last `rows` tokens and the first `sinks`, detached (Transformer-XL).

    >>> memory = Memory(rows=8)
    >>> for segment in torch.arange(12).view(1, 12).split(4, 1):
    ...     out = model(segment, memory=memory)
    >>> memory.position, memory.kept
    (12, 8)
    """

    def __init__(self, rows: int, sinks: int = 0) -> None:
        if rows < 0 or sinks < 0:
            raise Error(f"memory: expected 0 rows or more, found rows={rows}, sinks={sinks}")
        super().__init__(rows, sinks)


class TrainedConfig(DeepSeekConfig):
    """A hadal.Config of a model that is trained; the three attention_... take effect with the next pass, and are saved with the model."""

    def __init__(self, text: str, generation: str = "", where: str = "the configuration", masks: tuple[int, ...] = (0, 0, 0)) -> None:
        self.__dict__.update(_text=text, _generation=generation, _trunk=_train.Trunk(text, generation, where))
        super().__init__(self._trunk.numbers(), Masks(*masks), None)

    def __reduce__(self) -> tuple[Any, ...]:
        masks = tuple(getattr(self._wanted, name) for name in _MASKS)
        return type(self), (self._text, self._generation, "the configuration", masks)

    def published(self, dtype: torch.dtype) -> str:
        """config.json for parameters of that type."""
        keys = json.loads(self._text)
        for key in ("quantization_config", "torch_dtype", "dtype"):
            keys.pop(key, None)
        keys["torch_dtype"] = str(dtype).removeprefix("torch.")
        for name in ("num_nextn_predict_layers", "num_mtp_layers"):  # layers that guess tokens are not trained here, so not saved
            if keys.get(name) or (name == "num_nextn_predict_layers" and str(keys.get("model_type")).startswith("deepseek_v3")):
                keys[name] = 0
        for name, key in zip(_MASKS, ("attention_window", "attention_sinks", "attention_topk_blocks")):
            if wanted := getattr(self._wanted, name):
                keys[key] = wanted
        return json.dumps(keys, indent=1, ensure_ascii=False)


@dataclass
class Routing:
    """What the router of one layer decided; rows: batch * tokens."""

    layer: int
    logits: Tensor  # float32 [rows, experts]
    scores: Tensor  # softmax or sigmoid of them, what an article calls router weights
    experts: Tensor  # int64 [rows, active], the chosen ones
    weights: Tensor  # float32 [rows, active], what their outputs are multiplied by


@dataclass
class Output:
    """What one pass gives. Indexed by number it is (loss, logits) or, without labels, (logits,), as in transformers."""

    logits: Tensor  # float32 [batch, tokens, vocab]
    loss: Tensor | None = None  # mean cross entropy of each label given what stands before it
    hidden_states: tuple[Tensor, ...] | None = None  # layers + 1 of [batch, tokens, dim]; the last is behind the final norm
    routings: tuple[Routing, ...] | None = None  # of each layer that has experts

    @property
    def router_logits(self) -> tuple[Tensor, ...] | None:
        return None if self.routings is None else tuple(routing.logits for routing in self.routings)

    def __getitem__(self, which: int | slice | str) -> Any:
        if isinstance(which, str):
            return getattr(self, which)
        return tuple(part for part in (self.loss, self.logits) if part is not None)[which]


class _Part(nn.Module):
    """Holds parameters under their published names; the computing is done for the whole model at once."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={tuple(t.shape)}" for name, t in [*self._parameters.items(), *self._buffers.items()])


class DeepSeekModel(nn.Module):
    """A causal language model of the DeepSeek family as a torch module: from_pretrained(), from_config(), save_pretrained().

    config: hadal.Config; attention_window, attention_sinks and attention_top_blocks may be set at any time.
    """

    def __init__(self, config: TrainedConfig, tensors: list[Tensor], source: str | None = None) -> None:
        """config and its parameters in the order of the checkpoint; source: where tokenizer and templates are, copied when it is saved."""
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self._source = source
        self._slots: list[tuple[nn.Module, str]] = []  # of each parameter, in the order of C++
        described = config._trunk.parameters()
        self._grow([name.split(".") for name, _, _ in described])
        for (name, _, learnt), tensor in zip(described, tensors, strict=True):
            path, _, leaf = name.rpartition(".")
            part = self.get_submodule(path)
            if learnt:
                part.register_parameter(leaf, nn.Parameter(tensor))
            else:
                part.register_buffer(leaf, tensor)
            self._slots.append((part, leaf))

    def _grow(self, names: list[list[str]]) -> None:
        """The tree of modules that these names of parameters spell."""

        def grow(part: nn.Module, names: list[list[str]]) -> nn.Module:
            children: dict[str, list[list[str]]] = {}
            for first, *rest in names:
                if rest:
                    children.setdefault(first, []).append(rest)
            for name, below in children.items():
                listed = all(rest[0].isdigit() for rest in below)
                part.add_module(name, grow(nn.ModuleList() if listed else _Part(), below))
            return part

        grow(self, names)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        local_files_only: bool = False,
        attention_window: int | None = None,
        attention_sinks: int | None = None,
        attention_top_blocks: int | None = None,
    ) -> DeepSeekModel:
        """A folder, a .gguf file or a name, found as by hadal.DeepSeekModel.from_pretrained(); parameters are float32 unless dtype says otherwise.

        Error: what is missing, and how to get it.
        """
        offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        path = _find(os.fspath(pretrained_model_name_or_path), offline)
        text, generation = _train.config_texts(path)
        config = TrainedConfig(text, generation, path)
        model = cls(config, config._trunk.load(path), path)
        model._set_masks(attention_window, attention_sinks, attention_top_blocks)
        dtype = torch_dtype if dtype is None else dtype
        return model if dtype is None else model.to(dtype)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | str | os.PathLike[str] | TrainedConfig,
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        attention_window: int | None = None,
        attention_sinks: int | None = None,
        attention_top_blocks: int | None = None,
    ) -> DeepSeekModel:
        """Random parameters, a function of `seed`, for the keys of a config.json: a dictionary, the file, a folder that has it, or a model's config."""
        source = None
        if isinstance(config, TrainedConfig):
            made = TrainedConfig(*config.__reduce__()[1])
        elif isinstance(config, Mapping):
            made = TrainedConfig(json.dumps(config))
        else:
            path = pathlib.Path(config)
            if path.is_file() and path.suffix == ".json":
                made = TrainedConfig(path.read_text(), "", str(path))
            else:
                source = _find(os.fspath(config), True)
                made = TrainedConfig(*_train.config_texts(source), source)
        model = cls(made, made._trunk.random(seed), source)
        model._set_masks(attention_window, attention_sinks, attention_top_blocks)
        return model if dtype is None else model.to(dtype)

    def _set_masks(self, window: int | None, sinks: int | None, top_blocks: int | None) -> None:
        given = {name: value for name, value in zip(_MASKS, (window, sinks, top_blocks)) if value is not None}
        if given:
            self.config._set(**given)

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """config.json, model.safetensors with the published names, and the tokenizer of the model that this one began as.

        dtype: float32 or bfloat16; None: as the parameters are. What is trained with a window carries it. Error: the folder holds other weights.
        """
        tensors = self._tensors()
        dtype = dtype or (torch.float32 if self.dtype == torch.float64 else self.dtype)
        if dtype not in (torch.float32, torch.bfloat16):
            raise Error(f"dtype: expected torch.float32 or torch.bfloat16, found {dtype}")
        self.config._trunk.save(tensors, os.fspath(folder), dtype == torch.bfloat16, self.config.published(dtype), self._source)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        attention_window: int | None = None,
        attention_sinks: int | None = None,
        attention_top_blocks: int | None = None,
        memory: Memory | None = None,
        output_hidden_states: bool = False,
        output_router_logits: bool = False,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """input_ids: int64 [batch, tokens]; labels: the same shape, -100 where no loss is taken, shifted by one in here.

        attention_...: for this pass, instead of config's. attention_mask: padding behind the text only, which no token before it sees.
        """
        if input_ids.dim() == 1:
            input_ids = input_ids.unsqueeze(0)
        if attention_mask is not None:
            _check_padding(attention_mask, input_ids)
        wanted = {name: getattr(self.config._wanted, name) for name in _MASKS}
        for name, value in zip(_MASKS, (attention_window, attention_sinks, attention_top_blocks)):
            if value is not None:
                wanted[name] = value
        logits, hidden, layers = self.config._trunk.forward(
            self._tensors(), input_ids.long(), wanted["window"], wanted["sinks"], wanted["top_blocks"],
            self.gradient_checkpointing and self.training, memory, output_hidden_states, output_router_logits,
        )  # fmt: skip
        return Output(
            logits,
            None if labels is None else next_token_loss(logits, labels),
            tuple(hidden) if output_hidden_states else None,
            tuple(Routing(*layer) for layer in layers) if output_router_logits else None,
        )

    def _tensors(self) -> list[Tensor]:
        return [getattr(part, leaf) for part, leaf in self._slots]

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Each block keeps only its input and runs again on the way back: a fraction of the memory for a third more time."""
        self.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        self.gradient_checkpointing = False

    def num_parameters(self) -> int:
        return sum(tensor.numel() for tensor in self._tensors())

    @property
    def dtype(self) -> torch.dtype:
        return self._tensors()[0].dtype

    @property
    def device(self) -> torch.device:
        return self._tensors()[0].device

    def extra_repr(self) -> str:
        return f"{self.config.family}, {self.num_parameters():,} parameters"


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of labels[:, 1:] under logits[:, :-1]; labels of -100 are left out."""
    if labels.dim() == 1:
        labels = labels.unsqueeze(0)
    if labels.shape != logits.shape[:-1]:
        raise Error(f"labels: expected the shape of input_ids, {list(logits.shape[:-1])}, found {list(labels.shape)}")
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().long(), ignore_index=IGNORED)


def _check_padding(attention_mask: Tensor, input_ids: Tensor) -> None:
    if attention_mask.shape != input_ids.shape:
        raise Error(f"attention_mask: expected the shape of input_ids, {list(input_ids.shape)}, found {list(attention_mask.shape)}")
    seen = attention_mask.bool()
    if bool((seen[:, 1:] & ~seen[:, :-1]).any()):
        raise Error("attention_mask: expected padding behind the text only, found a token after a masked one")
