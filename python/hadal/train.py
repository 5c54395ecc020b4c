"""A run file's run by several programs: each computes a part of every batch, torch.distributed adds up what they found.

    torchrun --nproc-per-node 2 -m hadal.train RUN.toml
    torchrun --nproc-per-node 2 --max-restarts 3 -m hadal.train RUN.toml --output runs/second
    torchrun --nproc-per-node 2 -m hadal.train RUN.toml --expert-parallel

The loop is that of `hadal train`, or of `hadal distill` where there is a teacher, whose run files these are (docs/training.md), and two programs have
the losses of one. When a program dies the others end with an error; under --max-restarts torchrun starts all again, and they go on from the newest
state. Ctrl-C saves and stops.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import torch as _  # says what is missing where torch or the trainer is
from . import _train
from ._hadal import Error

import torch  # noqa: I001
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

BUCKET = 25 << 20  # bytes: what DistributedDataParallel sends at a time


def join() -> tuple[int, int]:
    """(rank, size) of this program in the group that torchrun's environment names, joined now."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    store, rank, size = next(rendezvous("env://"))
    # Without --rdzv-backend torchrun keeps one store for all attempts, where the addresses of programs that are gone still stand. On several machines
    # (c10d's rendezvous, a new store each time) the count may differ from one to the other.
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    return rank, size


def buckets(tensors: list[Tensor], limit: int = BUCKET) -> list[list[Tensor]]:
    """Runs of tensors of one type, of `limit` bytes or one tensor each."""
    all: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        size += tensor.nbytes
        if not all or size > limit or tensor.dtype != all[-1][0].dtype:
            all.append([])
            size = tensor.nbytes
        all[-1].append(tensor)
    return all


@contextmanager
def connected() -> Iterator[None]:
    """Error: another program is gone."""
    try:
        yield
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise Error(
            f"rank {dist.get_rank()} of {dist.get_world_size()} lost the others ({why}): "
            "start all again with --resume; torchrun --max-restarts N does it by itself"
        ) from None


def sum_over_ranks(tensors: list[Tensor]) -> None:
    """Each tensor becomes its sum over all ranks."""
    with connected():
        sent = []
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in sent:
            work.wait()
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket])):
                tensor.copy_(part.view_as(tensor))


def exchange_rows(rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """The first sent[0] rows go to rank 0, the next sent[1] to rank 1; what comes is received[0] rows of rank 0, received[1] of rank 1."""
    result = rows.new_empty((sum(received), *rows.shape[1:]))
    with connected():
        dist.all_to_all_single(result, rows, received, sent)
    return result


class Interrupt:
    """Whether Ctrl-C was pressed. torchrun passes it on, then waits half a minute."""

    def __init__(self) -> None:
        self.seen = False
        signal.signal(signal.SIGINT, self.note)

    def note(self, *_: object) -> None:
        self.seen = True

    def __call__(self) -> bool:
        return self.seen


class Progress:
    """A line on stderr every two seconds; with `losses`, a JSON line for each step on stdout."""

    def __init__(self, losses: bool) -> None:
        self.losses, self.begin, self.shown, self.first = losses, time.monotonic(), time.monotonic(), 0

    def __call__(self, step: int, steps: int, loss: float, evaluation: float, rate: float, note: str) -> None:
        self.first = self.first or step
        if self.losses:
            print(json.dumps({"step": step, "loss": loss}), flush=True)
        if note:
            print(note, file=sys.stderr)
        now = time.monotonic()
        if now - self.shown < 2:
            return
        self.shown = now
        left = (now - self.begin) / (step - self.first + 1) * (steps - step)
        tested = f", evaluation {evaluation:.4f}" if evaluation >= 0 else ""
        print(f"{step} of {steps} steps, loss {loss:.4f}{tested}, {rate:,.0f} tokens/s, {left:,.0f} s left", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hadal.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="RUN.toml")
    parser.add_argument("--output", default="", help="the folder to write; default: what the file says")
    parser.add_argument("--from", dest="model", default="", help="the model to go on from; default: what the file's [model] says")
    parser.add_argument("--resume", action="store_true", help="go on from the newest state; a restart by torchrun does")
    parser.add_argument("--expert-parallel", action="store_true", help="each program has a part of the experts, and rows travel to them")
    parser.add_argument("--losses", action="store_true", help="a JSON line for each step")
    options = parser.parse_args()
    rank, size = join()
    resume = options.resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    try:
        steps, loss, evaluation, seconds, model = _train.run(
            options.file, options.output, options.model, resume, rank, size, sum_over_ranks,
            exchange_rows if options.expert_parallel else None, Interrupt(), Progress(options.losses),
        )  # fmt: skip
    except Error as error:
        print(f"hadal: error: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # nothing is left to say to ranks that are gone
    if dist.is_initialized():
        dist.destroy_process_group()
    if rank == 0 and not model:
        print(f"stopped behind step {steps}; the same command with --resume goes on", file=sys.stderr)
    elif rank == 0:
        tested = f", evaluation {evaluation:.4f}" if evaluation >= 0 else ""
        print(f"{steps} steps by {size} programs in {seconds:.1f} s: loss {loss:.4f}{tested}\n{model}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
