"""CPU time of the servers a benchmark has started, which tells their cost where a busy machine hides their speed."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def servers_cpu_s() -> float | None:
    """CPU seconds so far of all living descendants of this process; None where there is no /proc.

    Source: proc_pid_stat(5), fields ppid, utime and stime.
    """
    if not PROC.is_dir():
        return None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            # The name of the program, in brackets before these, may hold anything.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        pid = int(entry.name)
        children.setdefault(int(fields[1]), []).append(pid)
        seconds[pid] = (int(fields[11]) + int(fields[12])) / ticks_per_s
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            total += seconds[pid]
            waiting.append(pid)
    return total
