"""Keeps one process of a server alive: `python -m server.keeper WHAT MODULE ARGUMENT...`, where WHAT is for the log.

Ends with the process that started it. Its logs are set up when there is something to say: until then it imports next
to nothing, and what it keeps starts at once.
"""

from __future__ import annotations

import os
import sys

from backends.engine.keeper import Keeper
from server.processes import PARENT_VARIABLE, end_with_starter


def main() -> None:
    what, module, *arguments = sys.argv[1:]
    end_with_starter()

    def ended(code: int, pause_s: float) -> None:
        from server.logs import configure_logs, get_logger
        from server.settings import load_settings

        configure_logs(load_settings(environ=os.environ).log)
        names = {"provider": arguments[0]} if arguments else {}
        get_logger("onnxstack").error(
            f"{what} has ended and is started again", **names, exit_code=code, pause_s=pause_s
        )

    environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    Keeper((sys.executable, "-m", module, *arguments), environ, ended).run()


if __name__ == "__main__":
    main()
