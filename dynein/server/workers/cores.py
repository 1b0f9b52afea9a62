"""The number of cores this process may use: under a CPU mask or a container's limit, fewer than the machine has."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores(*, cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores, at least one: the least of the CPU affinity mask and the cgroup limits (v2 and v1) of this process.

    A limit of 1.5 cores counts as one: a process that exceeds its quota is stopped for the rest of the period, up to
    100 ms by default, and then jobs are late.
    """
    try:
        cores: float = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, int(min([cores, *_limits(cgroups, membership)])))


def _limits(cgroups: Path, membership: Path) -> list[float]:
    """The CPU limits, in cores, of our cgroups and all their parents. In a container our cgroup is often the root."""
    limits: list[float | None] = []
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                root = cgroups
            elif "cpu" in controllers.split(","):
                root = cgroups / "cpu"
            else:
                continue
            steps = [part for part in path.split("/") if part not in {"", ".."}]
            limits += [_limit(root.joinpath(*steps[:depth])) for depth in range(len(steps) + 1)]
    return [limit for limit in limits if limit is not None]


def _limit(group: Path) -> float | None:
    """A cgroup's quota over period. None when it has no limit, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else float(quota) / float(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = float((group / "cpu.cfs_quota_us").read_text())
        return None if quota_us < 0 else quota_us / float((group / "cpu.cfs_period_us").read_text())
    return None
