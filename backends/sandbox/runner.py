"""What runs inside the sandbox: limits, the hook for pictures, then the code. Read by `sandbox.py` as text.

The standard library alone is there, and whatever the chosen Python has.
"""

import os
import resource
import runpy
import sys


def limit(cpu: int, memory: int, processes: int, disk: int) -> None:
    for what, value in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, disk),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(what, (value, value))


def show_figures() -> None:
    """Let `plt.show()` write figure-1.png, figure-2.png, ... into the working directory."""
    os.environ["MPLBACKEND"] = "module://sandbox_backend"
    os.environ["MPLCONFIGDIR"] = "/tmp"  # noqa: S108 - of the sandbox alone


if __name__ == "__main__":
    limit(*map(int, sys.argv[1:5]))
    os.close(int(sys.argv[5]))  # what packs the files writes there, and not the code
    show_figures()
    sys.argv = ["code.py"]
    sys.path.insert(0, "/sandbox")
    runpy.run_path("/sandbox/code.py", run_name="__main__")
