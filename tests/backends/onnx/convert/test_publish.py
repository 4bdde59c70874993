"""A model directory appears whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backends.onnx.convert import convert_decoder
from backends.onnx.convert.publish import published
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.reference import HUGGING_FACE_NAMES

CONVERT_AND_HANG = """
import sys
from pathlib import Path
from backends.onnx.convert import convert_decoder

def hang(stage, share):
    if share >= float(sys.argv[3]):
        print("reached", flush=True)
        sys.stdin.read()

convert_decoder(Path(sys.argv[1]), Path(sys.argv[2]), progress=hang)
"""


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_killed_conversion_leaves_nothing_and_the_next_one_cleans_up(tmp_path: Path, share: float) -> None:
    source = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES))
    models = tmp_path / "models"
    command = [sys.executable, "-c", CONVERT_AND_HANG, str(source), str(models / "m"), str(share)]
    root = Path(__file__).parents[4]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reached\n"
        (partial,) = models.iterdir()
        # A second one beside it takes nothing away from the first, which is alive.
        convert_decoder(source, models / "m")
        assert (partial / "model.onnx.data").exists()
        (models / "m").rename(tmp_path / "aside")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert [path.name for path in models.iterdir()] == [partial.name]
    convert_decoder(source, models / "m")
    assert [path.name for path in models.iterdir()] == ["m"]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with published(tmp_path / "m") as directory:
            (directory / "half").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with published(tmp_path / "m") as directory:
            (directory / name).touch()
            assert not (tmp_path / "m" / name).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["second"]


def test_a_directory_whose_replacement_was_killed_half_way_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".m.replaced-dead" / "old").mkdir(parents=True)
    (tmp_path / ".m.replaced-dead" / "old" / "first").touch()
    with published(tmp_path / "m") as directory:
        assert (tmp_path / "m" / "first").exists()
        (directory / "second").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["second"]


def test_progress_rises_to_one(tmp_path: Path) -> None:
    source = tiny.write_folder(tmp_path / "source", tiny.CONFIG, tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES))
    seen: list[tuple[str, float]] = []
    convert_decoder(source, tmp_path / "m", progress=lambda stage, share: seen.append((stage, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert seen[-1] == ("done", 1.0)
    assert len(shares) > tiny.CONFIG["num_hidden_layers"]
