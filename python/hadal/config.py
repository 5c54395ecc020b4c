"""What a model is, as numbers; and which of the past its tokens see, which may be changed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ._hadal import Error, Masks


def _nobody() -> None:
    """Who is told of changes where they are looked up instead."""


class Config:
    """Numbers of a model. Only the three attention_... may be set; what is set takes effect for every request from then on.

    >>> model.config.layers, model.config.vocab
    (3, 300)
    >>> model.config.attention_window = 512     # each token sees the last 512 only
    >>> model.config.attention_window = None    # the model's own again
    >>> model.config.attention_window = 0
    Traceback (most recent call last):
    ...
    hadal.Error: attention_window: expected a whole number of 1 or more, or None for the model's own, found 0
    """

    family: str  # model_type as published
    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int  # tokens
    ffn_dim: int
    attention: str  # "gqa" or "mla"
    kv_rank: int  # mla: width of the cached latents
    experts: int  # 0: dense
    active_experts: int
    shared_experts: int
    expert_dim: int
    rope_theta: float
    norm_eps: float
    parameters: int
    active_parameters: int  # that one token touches
    tied_head: bool
    begin_token: int
    end_tokens: list[int]

    _wanted: Masks
    _changed: Callable[[], Callable[[Masks], None] | None]
    _masks = ("attention_window", "attention_sinks", "attention_top_blocks")

    def __init__(self, numbers: dict[str, Any], masks: Masks, changed: Callable[[Masks], None] | None) -> None:
        """changed: told of every change, and may refuse it; its model holds the config, not the other way round."""
        self.__dict__.update(numbers, _wanted=masks, _changed=weakref.WeakMethod(changed) if changed else _nobody)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._masks:
            known = name in self.__dict__ or hasattr(type(self), name)
            raise AttributeError(
                f"{name} is as the model was trained: {', '.join(self._masks)} may be set"
                if known
                else f"a config has no {name}: {', '.join(self._masks)} may be set"
            )
        self._set(**{name.removeprefix("attention_"): value})

    def _set(self, **values: int | None) -> None:
        wanted = {name: getattr(self._wanted, name) for name in ("window", "sinks", "top_blocks")}
        for name, value in values.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31):
                raise Error(f"attention_{name}: expected a whole number of 1 or more, or None for the model's own, found {value!r}")
            wanted[name] = value or 0
        masks = Masks(**wanted)
        if changed := self._changed():
            changed(masks)  # may refuse
        self.__dict__["_wanted"] = masks

    @property
    def attention_window(self) -> int | None:
        """Each token sees the last so many only; what no layer sees any more is not kept. None: the model's own."""
        return self._wanted.window or None

    @property
    def attention_sinks(self) -> int | None:
        """Beside a window, the first so many tokens as well."""
        return self._wanted.sinks or None

    @property
    def attention_top_blocks(self) -> int | None:
        """Each token sees so many blocks of 64 tokens, those whose keys fit it best."""
        return self._wanted.top_blocks or None

    def to_dict(self) -> dict[str, Any]:
        numbers = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        return numbers | {name: getattr(self, name) for name in self._masks}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"
