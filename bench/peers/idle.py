"""Waiting for an idle machine: two busy programs on two cores cost each other far more than half."""

import time


def _ticks():
    fields = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return sum(fields), fields[3] + fields[4]  # idle and waiting for a disk


def wait_for_idle(patience, most_busy=0.06, for_seconds=1.0):
    """True when the machine was idle for a second; False when it was not within `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        all_before, idle_before = _ticks()
        time.sleep(for_seconds)
        all_after, idle_after = _ticks()
        if 1 - (idle_after - idle_before) / max(1, all_after - all_before) <= most_busy:
            return True
        if time.monotonic() > end:
            return False
