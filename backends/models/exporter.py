"""optimum in an environment of its own: exports encoders of architectures that no converter of ours builds.

optimum-onnx pins a transformers that other tools of a machine do not want, and needs torch; the server needs neither.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from backends.errors import CorruptModel, Unsupported

PACKAGES = ("optimum-onnx==0.1.0", "onnxruntime==1.32.0", "torch==2.13.0")
"""The pins with which exports were tried. A plain torch brings CUDA along."""
TIMEOUT_S = 1800.0
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class OptimumExporter:
    """Runs optimum of the virtual environment `environment`, which the operator makes."""

    def __init__(self, environment: Path) -> None:
        self._environment = environment

    @property
    def install_command(self) -> str:
        """What makes the environment."""
        place = shlex.quote(str(self._environment))
        return f"python -m venv {place} && {place}/bin/pip install {' '.join(PACKAGES)}"

    def export(self, folder: Path, target: Path) -> Path:
        """The graph of the encoder in the Hugging Face folder `folder`, written into the new directory `target`.

        Nothing is fetched and no code of the folder is run; its weights must be safetensors.

        Raises:
            Unsupported: there is no such environment; the message is the command that makes it. Or optimum does not
            know the architecture. CorruptModel: the folder has no safetensors.
        """
        if not any(folder.glob("*.safetensors")):  # else transformers would unpickle whatever weights there are
            raise CorruptModel("model.safetensors", "is missing")
        python = self._environment / "bin" / "python"
        if not python.exists():
            raise Unsupported(
                f"{folder.name} has an architecture that optimum must export, and optimum is not installed; "
                f"install it with: {self.install_command}"
            )
        command = [str(python), "-m", "optimum.exporters.onnx", "--model", str(folder), "--task", "feature-extraction"]
        command += ["--library-name", "transformers", "--framework", "pt", str(target)]
        try:
            run = subprocess.run(  # noqa: S603
                command, env=os.environ | _OFFLINE, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unsupported(f"optimum did not export {folder.name} within {TIMEOUT_S:.0f} s") from error
        graph = target / "model.onnx"
        if run.returncode or not graph.is_file():
            said = run.stderr.strip().rpartition("\n")[2]
            raise Unsupported(f"optimum cannot export {folder.name}: {said[:500]}")
        return graph
