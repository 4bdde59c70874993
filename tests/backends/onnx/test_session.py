"""Which ONNX Runtime, which device, and plain refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.errors import CorruptModel, Misconfigured, Unavailable
from backends.onnx.session import (
    DeviceChoice,
    choose_device,
    core_count,
    integer_products_saturate,
    open_session,
    runtime_distribution,
)


@pytest.mark.parametrize(
    ("machine", "flags", "saturate"),
    [
        ("x86_64", "flags : fpu avx2 avx512_vnni", False),
        ("AMD64", "flags : fpu avx2 avx_vnni", False),
        ("x86_64", "flags : fpu avx2 avx512f", True),
        ("x86_64", None, True),
        ("aarch64", None, False),
    ],
)
def test_integer_products_saturate_on_x86_without_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, saturate: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    assert integer_products_saturate(tmp_path / "cpuinfo") is saturate


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_one_distribution_is_what_there_should_be(name: str) -> None:
    assert runtime_distribution({name, "numpy"}) == name


def test_the_one_that_is_installed_here_is_found() -> None:
    assert runtime_distribution() == "onnxruntime"


def test_without_one_the_message_is_the_command_that_mends_it() -> None:
    with pytest.raises(Misconfigured, match=r"pip install 'onnxstack\[cpu\]'$"):
        runtime_distribution({"numpy"})


def test_two_are_refused_with_the_fix() -> None:
    with pytest.raises(Misconfigured, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        runtime_distribution({"onnxruntime", "onnxruntime-gpu"})


@pytest.mark.parametrize(
    ("device", "distribution", "float16_kv", "expected"),
    [
        ("cpu", "onnxruntime", False, "cpu"),
        ("cpu", "onnxruntime-gpu", True, "cpu"),
        ("auto", "onnxruntime", True, "cpu"),
        ("auto", "onnxruntime-gpu", True, "cuda"),
        ("auto", "onnxruntime-gpu", False, "cpu"),
        ("cuda", "onnxruntime-gpu", True, "cuda"),
    ],
)
def test_the_device_follows_setting_installation_and_model(
    device: str, distribution: str, float16_kv: bool, expected: str
) -> None:
    assert choose_device(device, distribution, float16_kv=float16_kv).device == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("distribution", "float16_kv", "error", "reason"),
    [
        ("onnxruntime", True, Misconfigured, "onnxruntime-gpu is not installed"),
        ("onnxruntime-gpu", False, Unavailable, "precision fp16"),
    ],
)
def test_cuda_refuses_to_fall_back(distribution: str, float16_kv: bool, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        choose_device("cuda", distribution, float16_kv=float16_kv)


def test_a_fall_back_of_auto_has_a_reason() -> None:
    assert "onnxruntime-gpu is not installed" in choose_device("auto", "onnxruntime").reason


def test_a_session_runs_where_it_says(smollm2_dir: Path) -> None:
    session, choice = open_session(smollm2_dir / "model.onnx", "cpu", 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert choice == DeviceChoice("cpu", "asked for by the setting")


@pytest.mark.parametrize("content", [b"", b"not a graph", None], ids=["empty", "garbage", "missing"])
def test_a_file_that_is_no_graph_is_corrupt(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CorruptModel, match=r"model\.onnx") as refusal:
        open_session(file, "cpu", 1)
    assert refusal.value.file == "model.onnx"


def test_there_is_a_core() -> None:
    assert core_count() >= 1
