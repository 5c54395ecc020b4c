"""python -m hadal.train: two programs have the losses of one; when one is killed the other ends, and torchrun starts both again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_torch import free_port, hadal_torch  # noqa: F401
from test_train import RUN, hadal

STEPS = 50


@pytest.fixture(scope="module")
def folder(hadal_torch, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "first.toml").write_text(RUN.format(output=folder / "first", steps=STEPS))
    done = hadal(folder, "tokenizer", "first.toml", "--vocab", "400", "--output", "tokenizer")
    assert done.returncode == 0, done.stderr
    return folder


def environment(package, folder):
    return os.environ | {
        "PYTHONPATH": str(pathlib.Path(package.__file__).parents[1]), "HADAL_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def torchrun(package, folder, ranks, *options, restarts=0):
    how = ["--nproc-per-node", str(ranks), "--master-addr", "127.0.0.1", "--master-port", str(free_port()), "--max-restarts", str(restarts)]
    command = [sys.executable, "-m", "torch.distributed.run", *how, "-m", "hadal.train", "first.toml", *options]
    return subprocess.Popen(command, cwd=folder, env=environment(package, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def losses(text):
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {line["step"]: line["loss"] for line in lines}


def children(pid):
    """Of torchrun: the ranks."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    return sorted(found)


def wait_for_state(folder, output, step):
    deadline = time.monotonic() + 200
    while not (folder / output / "state" / f"step-{step}").exists() and not list((folder / output / "state").glob(f"step-*{step}")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_ranks_have_the_losses_of_one(package, folder):
    found = []
    for ranks in (1, 2):
        out, errors = torchrun(package, folder, ranks, "--losses", "--output", f"ranks{ranks}").communicate(timeout=300)
        found.append(losses(out))
        assert len(found[-1]) == STEPS and f"by {ranks} programs" in errors, errors[-2000:]
    one, two = ([each[step] for step in range(1, STEPS + 1)] for each in found)
    assert one[-1] < one[0] - 1
    np.testing.assert_allclose(two, one, rtol=1e-6)  # a loss of 6 in float32 is known to 5e-7


def test_a_rank_that_is_killed_ends_the_others(package, folder):
    """Without torchrun, which would end them itself: each rank started by hand."""
    port = free_port()
    ranks = []
    for rank in range(2):
        more = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "hadal.train", "first.toml", "--output", "killed"]
        ranks.append(subprocess.Popen(command, cwd=folder, env=environment(package, folder) | more, stderr=subprocess.PIPE, text=True))
    wait_for_state(folder, "killed", 10)
    ranks[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = ranks[0].communicate(timeout=60)
    assert time.monotonic() - killed < 10
    ranks[1].communicate()
    assert ranks[0].returncode == 1 and "hadal: error: rank 0 of 2 lost the others" in errors and "--max-restarts" in errors, errors


def test_torchrun_starts_them_again(package, folder):
    run = torchrun(package, folder, 2, "--losses", "--output", "restarted", restarts=1)
    wait_for_state(folder, "restarted", 10)
    os.kill(children(run.pid)[-1], signal.SIGKILL)
    out, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors[-2000:]
    whole, _ = torchrun(package, folder, 2, "--losses", "--output", "whole").communicate(timeout=300)
    assert losses(out)[STEPS] == losses(whole)[STEPS], "it went on from its state, and ends as if nothing had been"
