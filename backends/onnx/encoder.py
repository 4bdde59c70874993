"""The text encoder: token ids in, one unit vector per text out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.errors import Unavailable
from backends.onnx.config import MODEL_FILE, TOKENIZER_FILE, EncoderConfig
from backends.onnx.session import Device, core_count, open_session
from backends.onnx.tokenizer import TextTokenizer

TokenIds = Sequence[int]


class OnnxEncoder:
    """One encoder graph with its tokenizer, loaded.

    The graph pools and normalises (`backends/onnx/convert/encoder_graph.py`). A vector depends on its text alone and,
    beyond float32 rounding, not on the texts it shares a run with: measured differences are below 1e-7 per component.
    side_by_side: runs that use the machine best when they are many, each on one thread: threads that share one run wait
    for each other at every operator.

    Raises (constructor):
        CorruptModel: the files do not hold what they declare. Unavailable: the device cannot be had.
    """

    def __init__(
        self, directory: Path, config: EncoderConfig, device: Device, threads: int, device_id: int = 0
    ) -> None:
        self.config = config
        self._tokenizer = TextTokenizer(directory / TOKENIZER_FILE)
        # An encoder has no KV cache, so float32 serves on CUDA too.
        self._session, self.device = open_session(directory / MODEL_FILE, device, threads, device_id=device_id)
        self.side_by_side = (threads or core_count()) if self.device.device == "cpu" else 1
        self._narrow = open_session(directory / MODEL_FILE, device, 1)[0] if self.side_by_side > 1 else self._session
        self._pool = ThreadPoolExecutor(self.side_by_side, "encoder")  # its threads end with this object

    busy = False
    """Whoever runs it holds it."""

    def close(self) -> None:
        """Its memory goes with the last who holds it."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the tokens around it, at most `config.max_tokens`. Raises BadRequest."""
        return self._tokenizer.encode_for_embedding(texts, self.config.max_tokens)

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Where the tokens of each text lie, int32 [tokens, 2], without those around it. Raises BadRequest."""
        return self._tokenizer.spans(texts)

    @property
    def room(self) -> int:
        """Tokens of a text that its vector can tell of."""
        return self._tokenizer.room(self.config.max_tokens)

    def run_side_by_side(self, batches: Sequence[Sequence[TokenIds]]) -> list[NDArray[np.float32]]:
        """`run` for each of at most `side_by_side` batches, at the same time. Raises Unavailable, after the last."""
        if len(batches) == 1:
            return [self.run(batches[0])]
        running = [self._pool.submit(self.run, batch, alone=False) for batch in batches]
        wait(running)
        return [run.result() for run in running]

    def run(self, batch: Sequence[TokenIds], *, alone: bool = True) -> NDArray[np.float32]:
        """Unit vectors, float32 [batch, dimension], of texts given as token ids, padded to the longest here.

        alone: on all threads, otherwise on the calling one. Raises Unavailable.
        """
        session = self._session if alone else self._narrow
        longest = max(map(len, batch))
        ids = np.full((len(batch), longest), self.config.pad_token_id, np.int32)
        mask = np.zeros((len(batch), longest), np.int32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        try:
            (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise Unavailable(f"the encoder failed: {str(error).partition(chr(10))[0]}") from error
        result: NDArray[np.float32] = vectors
        return result
