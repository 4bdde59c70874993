"""CPU time of started servers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.cpu import PROC, servers_cpu_s

pytestmark = pytest.mark.skipif(not PROC.is_dir(), reason="there is no /proc here")

BUSY = """
import time
while time.process_time() < 0.5:
    pass
print("done", flush=True)
input()
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


def test_a_grandchilds_cpu_time_counts_while_it_lives() -> None:
    before_s = servers_cpu_s()
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        after_s = servers_cpu_s()
    finally:
        process.communicate("\n", timeout=30)
    assert before_s is not None
    assert after_s is not None
    assert after_s - before_s >= 0.45  # the kernel tells it in ticks of 10 ms
