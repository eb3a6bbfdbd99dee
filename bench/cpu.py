"""CPU time by process of a running stack: on two full cores it is what decides, whatever else the machine does.

N µs of CPU per event, all processes together, make at most 2,000,000 / N events a second on two cores.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

GENERATOR = "generator"


def cpu_seconds(run_dir: Path) -> Counter[str]:
    """Give user and system seconds so far of each part; PostgreSQL's also by the service it worked for."""
    pids = json.loads((run_dir / "pids.json").read_text())
    used: Counter[str] = Counter({GENERATOR: _own(os.getpid())})
    for name, (pid, *_) in pids.items():
        for part, seconds in _family(name, pid):
            used[part] += seconds
    return used


def _family(name: str, pid: int) -> Iterator[tuple[str, float]]:
    """Give a process and all below it; those that have ended count with their parent."""
    root = psutil.Process(pid)
    yield name, _own(pid) + _ended(pid)
    for child in root.children(recursive=True):
        try:
            yield _part_of(name, child), _own(child.pid) + _ended(child.pid)
        except (psutil.Error, OSError):
            continue


def _part_of(name: str, child: psutil.Process) -> str:
    """Name a backend of PostgreSQL by its service: its title is `postgres: <role> <database> …`."""
    words = " ".join(child.cmdline()).split()
    if name == "postgres" and len(words) > 1 and words[1].startswith("eb_"):
        return f"postgres for {words[1].removeprefix('eb_').replace('_', '-')}"
    return name


def _own(pid: int) -> float:
    return sum(_ticks(pid)[0:2])


def _ended(pid: int) -> float:
    return sum(_ticks(pid)[2:4])


def _ticks(pid: int) -> list[float]:
    """Give utime, stime, cutime and cstime in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:15]]


def per_event(before: Counter[str], after: Counter[str], events: int) -> dict[str, float]:
    """Give µs of CPU per event by process, the costliest first, and their sum as `total`."""
    spent = {name: (after[name] - before[name]) / events * 1e6 for name in after}
    ordered = sorted(spent.items(), key=lambda item: -item[1])
    return {
        "total": round(sum(spent.values()), 1),
        **{name: round(us, 1) for name, us in ordered if us > 0.05},
    }
