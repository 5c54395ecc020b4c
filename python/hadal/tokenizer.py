"""Text to token ids and back, conversations to text: the checkpoint's own tokenizer and chat template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

from . import _hadal
from ._hadal import Error

Message = Mapping[str, Any]  # {"role": ..., "content": ...} as the OpenAI interface has it


def as_ids(ids: Any, what: str = "ids") -> np.ndarray:
    """[tokens] int32 of a list, an array or a tensor of whole numbers."""
    if hasattr(ids, "detach"):  # a torch tensor
        ids = ids.detach().cpu().numpy()
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise Error(f"{what}: expected whole numbers in one dimension, found shape {array.shape} of {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= 2**31):
        raise Error(f"{what}: expected token ids of 0 or more, found {array.min() if array.min() < 0 else array.max()}")
    return np.ascontiguousarray(array, dtype=np.int32)


def _content_of(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content if isinstance(content, Sequence) else [content]:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Error(f"content: expected a text or parts like {{'type': 'text', 'text': '...'}}, found {part!r}")
        texts.append(part["text"])
    return "".join(texts)


def as_message(message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise Error(f"messages: expected entries like {{'role': 'user', 'content': '...'}}, found {message!r}")
    out = {"role": message["role"], "content": _content_of(message.get("content"))}
    for key in ("reasoning_content", "name", "tool_call_id"):
        if message.get(key) is not None:
            if not isinstance(message[key], str):
                raise Error(f"messages: {key}: expected a text, found {message[key]!r}")
            out[key] = message[key]
    if message.get("tool_calls"):
        out["tool_calls"] = json.dumps(message["tool_calls"])
    return out


class Tokenizer:
    """The model's tokenizer.

    >>> ids = model.tokenizer.encode("hello")
    >>> ids.dtype, model.tokenizer.decode(ids)
    (dtype('int32'), 'hello')
    """

    def __init__(self, core: _hadal.Model) -> None:
        self._core = core

    def encode(self, text: str, *, special: bool = True, begin: bool = False) -> np.ndarray:
        """Token ids, int32 [tokens].

        special: special tokens that the text spells out become those tokens. begin: behind the begin token, where the model wants one.
        """
        if not isinstance(text, str):
            raise Error(f"text: expected a str, found {text!r:.100}")
        return self._core.encode(text.encode("utf-8", "replace"), special, begin)

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return self._core.decode(as_ids(ids), skip_special).decode("utf-8", "replace")

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tokenize: Literal[True] = True,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> np.ndarray: ...

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tokenize: Literal[False],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str: ...

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> np.ndarray | str:
        """The conversation as the model was trained to read it: ids, or the text with tokenize=False.

        messages: like [{"role": "user", "content": "Hello"}]. variables: further ones of the template, like thinking=True. Among the ids
        the template alone makes control tokens: what looks like one in a message is text.
        """
        given = self._conversation(messages, add_generation_prompt, tools, variables)
        return self._core.chat(*given)[0] if tokenize else self._core.render(*given).decode("utf-8", "replace")

    def _conversation(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] | None, variables: dict[str, Any]
    ) -> tuple[list[dict[str, str]], bool, str, str]:
        if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence):
            raise Error(f"messages: expected a list like [{{'role': 'user', 'content': '...'}}], found {messages!r:.100}")
        return (
            [as_message(message) for message in messages],
            add_generation_prompt,
            json.dumps(list(tools)) if tools else "",
            json.dumps(variables) if variables else "",
        )

    def piece(self, token: int) -> bytes:
        """The bytes of one token; they may end inside a character."""
        return self._core.piece(token)

    def find(self, text: str) -> int | None:
        """The id of the token with this very text; None: there is none."""
        return self._core.find(text)

    def __len__(self) -> int:
        return self._core.vocab_size()

    @property
    def begin_token(self) -> int | None:
        return self._core.begin_token()

    @property
    def end_token(self) -> int | None:
        return self._core.end_token()

    @property
    def has_chat_template(self) -> bool:
        return self._core.has_chat()
