"""How many processors this process may use, which on shared machines are fewer than there are."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return the processors that this process may use: those it is bound to, but no more than its cgroup's quota."""
    quota = _quota()
    return available_cpus() if quota is None else max(1, min(available_cpus(), int(quota)))


def available_cpus() -> int:
    """Return the number of processors that this process is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Return the processors that the cgroups of this process and those above them allow, None without a limit."""
    found = [_quota_of(folder) for folder in _folders()]
    return min((quota for quota in found if quota is not None), default=None)


def _folders() -> list[Path]:
    """Return the folders of the cgroups that limit this process: version 2, then version 1."""
    lines = _OWN_CGROUP.read_text().splitlines() if _OWN_CGROUP.is_file() else []
    folders = [_CGROUP, _CGROUP / "cpu"]
    for line in lines:
        number, controllers, path = line.split(":", 2)
        root = _CGROUP if number == "0" else _CGROUP / "cpu"
        if number == "0" or "cpu" in controllers.split(","):
            own = root / path.strip("/")
            folders += [own, *(parent for parent in own.parents if root in parent.parents)]
    return folders


def _quota_of(folder: Path) -> float | None:
    """Return the processors that one cgroup allows: `cpu.max` of version 2, or the quota of version 1."""
    if (folder / "cpu.max").is_file():
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    if (folder / "cpu.cfs_quota_us").is_file():
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    return None
