from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from server.held_directory import HeldDirectory
from tests.servers import ROOT

HOLDER = """
import sys
from pathlib import Path
from server.held_directory import HeldDirectory
print(HeldDirectory(Path(sys.argv[1]), "x-").path, flush=True)
sys.stdin.read()
"""


def test_what_a_kill_left_is_removed_and_what_is_held_stays(tmp_path: Path) -> None:
    held = HeldDirectory(tmp_path, "x-")
    (tmp_path / "y-other").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        assert held.path.is_dir()
        HeldDirectory(tmp_path, "x-").remove()
        assert left.is_dir()
        other.kill()
    HeldDirectory(tmp_path, "x-").remove()
    assert not left.exists()
    held.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["y-other"]


def test_it_is_for_this_user_alone(tmp_path: Path) -> None:
    held = HeldDirectory(tmp_path, "x-")
    assert held.path.stat().st_mode & 0o777 == 0o700
    held.remove()
