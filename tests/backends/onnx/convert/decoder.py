"""Runs a converted decoder as the engine does: one buffer is past and present, bound by its address."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from backends.onnx.config import MODEL_FILE, DecoderConfig, read_model_config

Float32 = NDArray[np.float32]


class Decoder:
    """slots: sequences in the cache; max_len: tokens of each."""

    def __init__(self, directory: Path, slots: int = 2, max_len: int = 512) -> None:
        config = read_model_config(directory)
        assert isinstance(config, DecoderConfig)
        self.config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(directory / MODEL_FILE, options, ["CPUExecutionProvider"])
        shape = (slots, config.kv_heads, max_len, config.head_dim)
        self.cache = {
            f"{layer}.{part}": np.zeros(shape, config.kv_dtype) for layer in range(config.layers) for part in "kv"
        }

    def run(self, ids: list[list[int]], past: list[int], rows: list[int] | None = None, slot: int = 0) -> Float32:
        """Run sequences `slot`, `slot` + 1, ..., each with `past` tokens in its cache; logits of `rows`, by default the
        last token of each."""
        batch, length = len(ids), len(ids[0])
        if rows is None:
            rows = [(b + 1) * length - 1 for b in range(batch)]
        seqlens = np.array([p + length - 1 for p in past], np.int32)
        logits = np.empty((len(rows), self.config.vocab), np.float32)
        inputs = {
            "input_ids": np.array(ids, np.int64),
            "seqlens_k": seqlens,
            "total_len": np.array(seqlens.max() + 1, np.int32),
            "logit_rows": np.array(rows, np.int64),
        }
        binding = self.session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        for name, buffer in self.cache.items():
            part = buffer[slot : slot + batch]
            for prefix, bind in (("past", binding.bind_input), ("present", binding.bind_output)):
                bind(f"{prefix}.{name}", "cpu", 0, part.dtype, part.shape, part.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self.session.run_with_iobinding(binding)
        return logits

    def all_logits(self, ids: list[int]) -> Float32:
        """Logits after every token of a fresh sequence, float32 [tokens, vocab]."""
        return self.run([ids], [0], list(range(len(ids))))

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The `count` most likely tokens after `prompt`, one by one."""
        out = [int(self.run([prompt], [0])[0].argmax())]
        while len(out) < count:
            past = len(prompt) + len(out) - 1
            out.append(int(self.run([out[-1:]], [past])[0].argmax()))
        return out
