"""Opens ONNX Runtime sessions: the provider that was asked for, or a plain refusal."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog

from backends.errors import CorruptModel, Misconfigured, Unavailable

if TYPE_CHECKING:  # imported in the functions, after `runtime_distribution` has had its say
    from onnxruntime import InferenceSession

Device = Literal["auto", "cpu", "cuda"]
DeviceInUse = Literal["cpu", "cuda"]

CPU_DISTRIBUTION = "onnxruntime"
GPU_DISTRIBUTION = "onnxruntime-gpu"
CUDA_PROVIDER = "CUDAExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"
_ABSOLUTE_PATH = re.compile(r'"/[^"]*"')

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """Where sessions run and why; `inspect` and the log show it."""

    device: DeviceInUse
    reason: str


def runtime_distribution(installed: Iterable[str] | None = None) -> str:
    """The one ONNX Runtime distribution that is installed.

    Both wheels own the folder `onnxruntime`: with both installed the last one wins and removing either breaks the
    other.
    `installed`: names of the distributions that are there; None asks the environment.

    Raises:
        Misconfigured: none or both are installed; the message is the command that mends it.
    """
    found = _installed() if installed is None else frozenset(installed)
    match CPU_DISTRIBUTION in found, GPU_DISTRIBUTION in found:
        case True, True:
            raise Misconfigured(
                "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
                "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxstack[cpu]' or 'onnxstack[gpu]'"
            )
        case False, False:
            raise Misconfigured("ONNX Runtime is missing: pip install 'onnxstack[cpu]'")
        case True, False:
            return CPU_DISTRIBUTION
        case _:
            return GPU_DISTRIBUTION


def choose_device(device: Device, distribution: str, *, float16_kv: bool = True) -> DeviceChoice:
    """The device for a model; `auto` takes CUDA where it can work.

    float16_kv: whether the graph computes attention in float16 or has none with a cache; GroupQueryAttention has no
    float32 kernel on CUDA and would run on the CPU, piece by piece.

    Raises:
        Misconfigured: `cuda` is demanded of an installation without it. Unavailable: or of a model that cannot use it.
    """
    if device == "cpu":
        return DeviceChoice("cpu", "asked for by the setting")
    if distribution != GPU_DISTRIBUTION:
        reason = "onnxruntime-gpu is not installed"
        if device == "cuda":
            fix = "pip uninstall -y onnxruntime, then pip install 'onnxstack[gpu]'"
            raise Misconfigured(f"device cuda is not available: {reason} ({fix})", where="engine.device")
    elif not float16_kv:
        reason = "the model was converted for the CPU; convert it with precision fp16 for CUDA"
    else:
        return DeviceChoice("cuda", "asked for by the setting" if device == "cuda" else "onnxruntime-gpu is installed")
    if device == "cuda":
        raise Unavailable(f"device cuda is not available: {reason}", retry_after_s=None)
    return DeviceChoice("cpu", reason)


def core_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def integer_products_saturate(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether ONNX Runtime's fast kernel for uint8 times int8 can overflow here: on x86 without VNNI, or not known to
    have it. The exact kernel takes twice the time where there is VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return not {"avx512_vnni", "avx_vnni"} & set(cpu_info.read_text().split())
    except OSError:
        return True


def open_session(
    model: Path,
    device: Device,
    threads: int,
    *,
    float16_kv: bool = True,
    graph: bytes | None = None,
    packed: Path | None = None,
    device_id: int = 0,
) -> tuple[InferenceSession, DeviceChoice]:
    """A session on `model` and the device it really runs on.

    graph: takes the place of the file's own, with the weights beside the file. packed: where to write the graph as this
    machine runs it, with its weights in the order of the kernels; sessions of that file share the memory. device_id:
    which GPU. threads: of one run; 0 takes the number of cores. They spin between runs, which decode needs (198 against
    146 tok/s).

    Raises:
        CorruptModel: ONNX Runtime does not take the file. OSError: `packed` cannot be written. Misconfigured,
        Unavailable: the device cannot be had.
    """
    choice = choose_device(device, runtime_distribution(), float16_kv=float16_kv)
    if choice.device == "cuda":
        import onnxruntime

        onnxruntime.preload_dlls()
        session = _session(model, [(CUDA_PROVIDER, {"device_id": device_id}), CPU_PROVIDER], threads, graph, packed)
        # ONNX Runtime falls back without an error when CUDA's libraries are missing.
        if session.get_providers()[0] == CUDA_PROVIDER:
            log.info("session opened", model=str(model), device="cuda", reason=choice.reason)
            return session, choice
        reason = "ONNX Runtime could not load its CUDA provider (driver, CUDA 13 and cuDNN 9 are needed)"
        if device == "cuda":
            raise Unavailable(f"device cuda is not available: {reason}", retry_after_s=None)
        choice = DeviceChoice("cpu", reason)
    session = _session(model, [CPU_PROVIDER], threads, graph, packed)
    log.info("session opened", model=str(model), device="cpu", reason=choice.reason)
    return session, choice


def _session(
    model: Path, providers: list[Any], threads: int, graph: bytes | None, packed: Path | None
) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or core_count()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    if integer_products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if packed is not None:
        options.optimized_model_filepath = str(packed)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{packed.name}.data"
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    try:
        if graph is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.parent))
        return onnxruntime.InferenceSession(str(model) if graph is None else graph, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        if packed is not None:
            raise OSError(f"{packed.name} cannot be written: {error}") from error
        reason = _ABSOLUTE_PATH.sub('"..."', str(error).partition("\n")[0])  # clients are told it
        raise CorruptModel(model.name, reason) from error


def _installed() -> frozenset[str]:
    found = set()
    for name in (CPU_DISTRIBUTION, GPU_DISTRIBUTION):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
    return frozenset(found)
