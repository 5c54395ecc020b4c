"""A model in this process: texts and token ids in, replies and logits out; requests of all threads and tasks are computed together."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import pathlib
import random
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np

from . import _hadal
from ._hadal import Error, Masks
from .config import Config
from .tokenizer import Message, Tokenizer, as_ids

Prompt = str | Sequence[int] | np.ndarray | Sequence[Message]


class Piece(str):
    """A part of a reply: a str, with the ids that came with it and whether it is reasoning rather than answer."""

    ids: list[int]
    reasoning: bool

    def __new__(cls, text: str, ids: Sequence[int] = (), reasoning: bool = False) -> Piece:
        piece = super().__new__(cls, text)
        piece.ids = list(ids)
        piece.reasoning = reasoning
        return piece


@dataclass
class Reply:
    """A whole reply. str() of it is its text.

    text: without the reasoning. ids: every token, without the one that ended it. finish: "stop" (an end token or a stop text), "length"
    or "cancelled". logprobs: of each token, it first, then the likeliest as (id, log-probability); empty unless asked for.
    """

    text: str = ""
    reasoning: str = ""
    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    prompt_tokens: int = 0
    seed: int = 0
    logprobs: list[list[tuple[int, float]]] = field(default_factory=list)

    @property
    def message(self) -> dict[str, str]:
        """As it goes back into a conversation."""
        said = {"role": "assistant", "content": self.text}
        return said | {"reasoning_content": self.reasoning} if self.reasoning else said

    def __str__(self) -> str:
        return self.text


class _Running:
    """What both kinds of stream share: a reply of the engine, and what has been read of it."""

    def __init__(self, handle: _hadal.Reply, reply: Reply, wants_logprobs: bool) -> None:
        self._handle: _hadal.Reply | None = handle
        self._wants_logprobs = wants_logprobs
        self._ready: list[Piece] = []
        self.reply = reply

    def _take(self) -> Piece | None:
        """The next piece that is there; None: there is none, perhaps because the reply has ended."""
        if not self._ready and self._handle is not None:
            try:
                pieces, ids, logprobs, finish = self._handle.take()
            except Error:
                self._handle = None
                raise
            self.reply.ids += ids
            if self._wants_logprobs:
                self.reply.logprobs += logprobs
            for reasoning, text, its in pieces:
                if reasoning:
                    self.reply.reasoning += text
                else:
                    self.reply.text += text
                self._ready.append(Piece(text, its, reasoning))
            if finish is not None:
                self.reply.finish, self._handle = finish, None
        return self._ready.pop(0) if self._ready else None

    @property
    def ended(self) -> bool:
        return self._handle is None and not self._ready

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self.reply.finish = "cancelled"
        self._ready = []


class Stream(_Running, Iterator[Piece]):
    """A reply as it is written. `reply` holds what has been read so far. close(), or letting go of it, ends the reply within one step."""

    def __next__(self) -> Piece:
        while True:
            piece = self._take()
            if piece is not None:
                return piece
            if self._handle is None:
                raise StopIteration
            self._handle.wait(0.1)  # Python sees to Ctrl-C in between

    def close(self) -> None:
        self._cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> Reply:
        """Waits for the rest."""
        for _ in self:
            pass
        return self.reply


class AsyncStream(_Running, AsyncIterator[Piece]):
    """A reply as it is written, for asyncio. Ends within one step on aclose(), on cancellation, or when nobody holds it any more."""

    async def __anext__(self) -> Piece:
        while True:
            piece = self._take()
            if piece is not None:
                return piece
            if self._handle is None:
                raise StopAsyncIteration
            try:
                await self._news(self._handle.fileno())
            except asyncio.CancelledError:
                self._cancel()
                raise

    @staticmethod
    async def _news(descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def arrive() -> None:
            if not arrived.done():
                arrived.set_result(None)

        loop.add_reader(descriptor, arrive)
        try:
            await arrived
        finally:
            loop.remove_reader(descriptor)

    async def aclose(self) -> None:
        self._cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def read(self) -> Reply:
        """Waits for the rest."""
        async for _ in self:
            pass
        return self.reply


_open_models: weakref.WeakSet[Model] = weakref.WeakSet()


@atexit.register
def _close_models() -> None:
    for model in list(_open_models):
        model.close()


def _recommended(path: str) -> dict[str, Any]:
    """How the checkpoint's author wants tokens drawn (generation_config.json), else the likeliest each time."""
    try:
        config = json.loads((pathlib.Path(path) / "generation_config.json").read_text())
    except (OSError, ValueError):
        return {"temperature": 0.0}
    if not isinstance(config, dict) or not config.get("do_sample"):
        return {"temperature": 0.0}
    names = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
    return {ours: config[theirs] for theirs, ours in names.items() if isinstance(config.get(theirs), (int, float))}


class Model:
    """A loaded model. Safe to use from any number of threads and tasks; a reply does not depend on what runs beside it.

    Options of generate, stream and chat, with those that a checkpoint's generation_config.json recommends as defaults, else temperature 0:
      max_tokens          longest reply; None: as long as there is room
      temperature         0: the likeliest token each time
      top_k, top_p, min_p
      repeat_penalty      over prompt and reply; 1: off
      presence_penalty, frequency_penalty    over the reply
      logit_bias          {id: value}, added to logits
      seed                the same seed gives the same reply; None: a random one
      stop                a text or several, which end the reply and are not part of it
      stop_tokens         ids instead of the model's own end tokens
      logprobs            report each token's log-probability and so many of the likeliest
    A prompt is a text (behind the begin token where the model wants one), token ids, or a list of messages, which the model's chat template
    puts into words.
    """

    def __init__(self, core: _hadal.Model, masks: Masks) -> None:
        self._core = core
        self._process = os.getpid()
        self._sampling = _recommended(core.path())
        self.config = Config(core.config(), masks, self._change_masks)
        self.tokenizer = Tokenizer(core)
        _open_models.add(self)

    def _change_masks(self, masks: Masks) -> None:
        self._core = self._core.masked(masks)  # what runs goes on as it began

    @property
    def path(self) -> str:
        """Where it was found."""
        return self._core.path()

    @property
    def room(self) -> int:
        """Tokens that one prompt and its reply may have."""
        return self._core.room()

    @overload
    def generate(self, prompt: Prompt, *, max_tokens: int | None = 256, **options: Any) -> Reply: ...  # type: ignore[overload-overlap]

    @overload
    def generate(self, prompt: Sequence[Prompt], *, max_tokens: int | None = 256, **options: Any) -> list[Reply]: ...

    def generate(self, prompt: Any, *, max_tokens: int | None = 256, **options: Any) -> Reply | list[Reply]:
        """The reply to a prompt; of a list of prompts the replies, computed together.

        >>> model.generate([1, 2, 3], max_tokens=2, temperature=0).finish
        'length'
        >>> [len(reply.ids) for reply in model.generate(["a text", "another"], max_tokens=3, temperature=0)]
        [3, 3]
        """
        if _is_one(prompt):
            return self.stream(prompt, max_tokens=max_tokens, **options).read()
        seed = options.pop("seed", None)
        seed = random.getrandbits(32) if seed is None else seed
        streams = [self.stream(one, max_tokens=max_tokens, seed=seed + i, **options) for i, one in enumerate(prompt)]
        return [stream.read() for stream in streams]

    def stream(self, prompt: Prompt, *, max_tokens: int | None = 256, **options: Any) -> Stream:
        """The reply as it is written.

        >>> "".join(model.stream("a text", max_tokens=3, temperature=0)) == model.generate("a text", max_tokens=3, temperature=0).text
        True
        """
        return Stream(*self._start(prompt, max_tokens, options))

    async def generate_async(self, prompt: Prompt, *, max_tokens: int | None = 256, **options: Any) -> Reply:
        """As generate, for asyncio: await it, alone or in asyncio.gather."""
        return await self.stream_async(prompt, max_tokens=max_tokens, **options).read()

    def stream_async(self, prompt: Prompt, *, max_tokens: int | None = 256, **options: Any) -> AsyncStream:
        """As stream, for asyncio: `async for piece in model.stream_async(...)`."""
        return AsyncStream(*self._start(prompt, max_tokens, options))

    @overload
    def chat(
        self, messages: Sequence[Message], *, stream: Literal[False] = False, max_tokens: int | None = None, **options: Any
    ) -> Reply: ...

    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[True], max_tokens: int | None = None, **options: Any) -> Stream: ...

    def chat(self, messages: Sequence[Message], *, stream: bool = False, max_tokens: int | None = None, **options: Any) -> Reply | Stream:
        """The answer to a conversation, like [{"role": "user", "content": "Hello"}]; with stream=True as it is written.

        thinking=True or False: for models that reason when told to. tools: a list as the OpenAI interface has it. template_variables:
        further ones of the chat template.
        """
        if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
            raise Error(f"messages: expected a list like [{{'role': 'user', 'content': '...'}}], found {messages!r:.100}")
        running = self.stream(messages, max_tokens=max_tokens, **options)
        return running if stream else running.read()

    def logits(self, ids: Any) -> np.ndarray:
        """float32 [tokens, vocab]: row i is for the token that follows token i.

        >>> model.logits([1, 2, 3]).shape
        (3, 300)
        """
        return self._here().logits(as_ids(ids))

    def close(self) -> None:
        """Ends what runs and gives the memory back; also happens when nobody holds the model any more, and at the end of the program."""
        if self._process == os.getpid():
            self._core.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hadal.Model {self.path}: {self.config.family}, {self.config.parameters:,} parameters>"

    def _here(self) -> _hadal.Model:
        if self._process != os.getpid():
            raise Error(
                "this model was loaded before the process forked, and its threads stayed behind: load it in the child, or start the "
                'child with multiprocessing\'s "spawn"'
            )
        return self._core

    def _prompt_of(self, prompt: Any, variables: dict[str, Any]) -> tuple[np.ndarray, bool, bool]:
        """(ids, starts inside the reasoning, is a chat)"""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt, begin=True), False, False
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            tools = variables.pop("tools", None)
            return *self._core.chat(*self.tokenizer._conversation(prompt, True, tools, variables)), True
        return as_ids(prompt, "prompt"), False, False

    def _start(self, prompt: Prompt, max_tokens: int | None, options: dict[str, Any]) -> tuple[_hadal.Reply, Reply, bool]:
        core = self._here()
        variables = dict(options.pop("template_variables", None) or {})
        thinking, tools = options.pop("thinking", None), options.pop("tools", None)
        if thinking is not None:
            variables |= {"thinking": thinking, "enable_thinking": thinking}
        if tools:
            variables["tools"] = tools
        ids, in_reasoning, is_chat = self._prompt_of(prompt, variables)
        how = self._sampling | {name: value for name, value in options.items() if value is not None}
        seed = how.setdefault("seed", random.getrandbits(32))
        if isinstance(how.get("stop"), str):
            how["stop"] = [how["stop"]]
        if "logit_bias" in how:
            how["logit_bias"] = list(dict(how["logit_bias"]).items())
        how["max_tokens"] = core.room() if max_tokens is None else max_tokens
        handle = core.submit(ids, in_reasoning, is_chat, **how)
        return handle, Reply(prompt_tokens=len(ids), seed=seed), "logprobs" in how


def _is_one(prompt: Any) -> bool:
    """Whether it is one prompt rather than a list of them."""
    if isinstance(prompt, (str, np.ndarray)) or hasattr(prompt, "detach") or not isinstance(prompt, Sequence) or not prompt:
        return True
    return isinstance(prompt[0], (int, np.integer, Mapping))


def load(
    model: str | os.PathLike[str],
    weights: str | None = None,
    cache: str | None = None,
    context: int | None = None,
    threads: int | None = None,
    attention_window: int | None = None,
    *,
    attention_sinks: int | None = None,
    attention_top_blocks: int | None = None,
    keep: Mapping[str, str] | None = None,
    replies: int = 8,
    draft: str = "auto",
    chunk: int = 512,
) -> Model:
    """Loads a model.

    model: a folder in Hugging Face layout, a .gguf file, or a name in the cache (`hadal models` lists them, hadal.pull fetches one).
    weights: the type of matrices: w8, w4, w3, w2 (packed while loading), f32, f16, bf16; None: as stored. keep: other types for weights
    whose names match, like {"*.o_proj.weight": "w8"}; the first match counts.
    cache: how keys and values are kept: i8, f16 or f32; None: f32 for f32 weights, i8 for packed ones, else f16.
    context: tokens of prompt and reply that each of `replies` requests has room for at a time; None: as many as the model can, less where
    memory is short. Short requests share the room, more requests wait.
    threads: to compute with, shared by every model of the process; None: every core this process may use.
    attention_window, attention_sinks, attention_top_blocks: see Config.
    draft: guess tokens and check several in one pass, which does not change the reply: off, lookup, mtp or auto.
    chunk: prompt tokens per forward pass.

    >>> hadal.load("no/such-model")
    Traceback (most recent call last):
    ...
    hadal.Error: there is no model "no/such-model": tried the path and ...; `hadal pull no/such-model` fetches it from a hub
    """
    wanted = {"window": attention_window, "sinks": attention_sinks, "top_blocks": attention_top_blocks}
    for name, value in (("context", context), ("threads", threads), *((f"attention_{name}", value) for name, value in wanted.items())):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31):
            raise Error(f"{name}: expected a whole number of 1 or more, found {value!r}")
    masks = Masks(**{name: value or 0 for name, value in wanted.items()})
    core = _hadal.load(
        os.fspath(model), masks, weights or "", cache or "", draft, list((keep or {}).items()), context or 0, replies, chunk, threads or 0
    )
    return Model(core, masks)


def pull(model: str) -> str:
    """Downloads a model of a hub into the cache, resuming what was begun, and returns where it is: "owner/name", "owner/name/file.gguf" or
    a name that `hadal models` lists. $HF_ENDPOINT and $HF_TOKEN count."""
    return _hadal.pull(model, 6)
