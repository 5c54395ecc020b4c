"""DeepSeek models on ordinary CPUs.

    >>> import hadal
    >>> model = hadal.load(path)                        # a folder, a .gguf file or a name
    >>> reply = model.generate("once upon", max_tokens=4, temperature=0)
    >>> reply.finish, len(reply.ids)
    ('length', 4)
    >>> for piece in model.stream("once upon", max_tokens=4, temperature=0):
    ...     text = str(piece)                           # a str, with .ids and .reasoning
    >>> model.logits(model.tokenizer.encode("once upon")).dtype   # [tokens, vocab]
    dtype('float32')

`from hadal import DeepSeekModel` has the names that users of transformers know; `hadal.torch.DeepSeekModel` is one that PyTorch trains. Whatever is wrong with what was given raises `hadal.Error`,
a ValueError, which says what was expected and what was found.
"""

import importlib
import types

from ._hadal import Error, cache_folder
from ._hadal import version as __version__
from .config import Config
from .deepseek import DeepSeekConfig, DeepSeekModel, DeepSeekOutput
from .model import AsyncStream, Model, Piece, Reply, Stream, load, pull
from .tokenizer import Tokenizer

Error.__module__ = "hadal"

__all__ = [
    "AsyncStream",
    "Config",
    "DeepSeekConfig",
    "DeepSeekModel",
    "DeepSeekOutput",
    "Error",
    "Model",
    "Piece",
    "Reply",
    "Stream",
    "Tokenizer",
    "__version__",
    "cache_folder",
    "load",
    "pull",
]


def __getattr__(name: str) -> types.ModuleType:
    if name == "torch":  # imported where it is asked for: the rest needs no torch
        return importlib.import_module("hadal.torch")
    raise AttributeError(f"module 'hadal' has no attribute '{name}'")
