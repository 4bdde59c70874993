"""The peers, each optional: llama.cpp's server (native binary or the wheel xllamacpp) and sentence-transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import gguf

WHEEL_SERVER = """
import sys, threading, xllamacpp
model, port, threads, context, slots = sys.argv[1], *map(int, sys.argv[2:6])
alias, grammar = sys.argv[6:8]
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames, params.port, params.cache_ram_mib = ["127.0.0.1"], port, 0
params.n_ctx, params.n_parallel = context, slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.cont_batching, params.cache_prompt = True, False
params.model_alias = {alias}
if grammar:
    params.sampling.grammar = xllamacpp.CommonGrammar(xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, grammar)
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], timeout_s: float = 120.0) -> None:
    """Return once `url` answers 200. Raises RuntimeError when the process ends or the time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server behind {url} ended with code {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{url} did not answer within {timeout_s:.0f} s")


def llama_variants() -> list[str]:
    """The llama.cpp builds at hand: `native` (binary by LLAMA_SERVER or on PATH) and `wheel` (xllamacpp)."""
    found = []
    if os.environ.get("LLAMA_SERVER") or shutil.which("llama-server"):
        found.append("native")
    if importlib.util.find_spec("xllamacpp"):
        found.append("wheel")
    return found


@contextlib.contextmanager
def llama_server(
    variant: str,
    model: Path,
    *,
    threads: int,
    slots: int = 16,
    context: int = 16384,
    alias: str = "default",
    grammar: str = "",
) -> Iterator[str]:
    """llama.cpp's server on `model` with one slot for each of `slots` sequences; yields its base URL.

    It reuses no prompt, whoever asks it. context: tokens of all slots together. alias: the model's name.
    grammar: GBNF that every answer keeps to, or "".
    """
    port = free_port()
    if variant == "native":
        binary = os.environ.get("LLAMA_SERVER") or str(shutil.which("llama-server"))
        command = [binary, "-m", str(model), "-t", str(threads), "-tb", str(threads), "-c", str(context)]
        command += ["-np", str(slots), "-fa", "on", "-cb", "--port", str(port), "--alias", alias]
        command += ["--no-cache-prompt", "--cache-ram", "0"]
        command += ["--grammar", grammar] if grammar else []
    else:
        command = [sys.executable, "-c", WHEEL_SERVER, str(model), str(port), str(threads), str(context), str(slots)]
        command += [alias, grammar]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def q8_0_copy(source: Path, target: Path, renamed: Mapping[str, str] = MappingProxyType({})) -> Path:
    """The GGUF `source` with its matrices stored as Q8_0, made once: the peer's weights at the bits we serve.

    renamed: new names of tokens, in the vocabulary and in the chat template.
    """
    if target.exists():
        return target
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    staging = target.with_suffix(".part")
    writer = gguf.GGUFWriter(staging, str(architecture))
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = entry.types[0]
        contents = entry.contents()
        if name == "tokenizer.ggml.tokens":
            contents = [renamed.get(token, token) for token in contents]
        elif name == "tokenizer.chat_template":
            for old, new in renamed.items():
                contents = contents.replace(old, new)
        writer.add_key_value(name, contents, kind, entry.types[1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if len(tensor.shape) == 2:
            kind8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor.name, gguf.quantize(values, kind8), raw_dtype=kind8)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    staging.replace(target)
    return target
