"""The ModelTrainer port with torch: models of our own store, trained in this process."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.errors import BadRequest, Forbidden, StackError, StorageFull, Unavailable, Unsupported
from backends.jobs.records import Job
from backends.jobs.running import RunningJob
from backends.models.manifest import Precision
from backends.models.store import ModelStore, StoredModel
from backends.onnx.config import DecoderConfig, read_model_config
from backends.onnx.conversation import load_language
from backends.onnx.convert.decoder_stored import StoredDecoder
from backends.onnx.session import core_count
from backends.ports import JsonObject, TrainedEpoch
from backends.training.plan import Lora, Plan, Quantised
from backends.training.publish import TrainedSource
from backends.training.settings import TrainingSettings

PACKAGES = ("torch", "transformers", "peft", "torchao")
_REPORT_EVERY = 5
"""Optimiser steps between two words about the progress."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TorchTrainer:
    """Trains models of the store below `models`; what it needs on the way lies below `work`."""

    def __init__(self, settings: TrainingSettings, models: Path, work: Path) -> None:
        self._settings = settings
        self._store = ModelStore(models)
        self._work = work

    def check(self, plan: Plan, model: str) -> None:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise Unsupported(
                f"fine-tuning needs the packages {', '.join(missing)}; install onnxstack with the extra [training]"
            )
        StoredDecoder(self._store.path(model))
        self._checkpoint_dir(plan)

    def train(
        self,
        job: RunningJob,
        plan: Plan,
        model: str,
        rows: Sequence[JsonObject],
        validation: Sequence[JsonObject],
        done: int,
    ) -> Iterator[TrainedEpoch]:
        if done >= plan.training.n_epochs:  # killed when only the last registration was left
            self.forget(job.job)
            return
        import torch

        from backends.training.loop import Trainer, merged_state
        from backends.training.model import TrainedDecoder, load_module

        base = self._store.get(model)
        device = self._device(torch)
        torch.set_num_threads(self._settings.threads or core_count())
        examples = self._examples(plan, base, rows)
        held_out = self._examples(plan, base, validation)

        def stepped(epoch: int, step: int, steps: int, loss: float) -> None:
            job.context.check()
            if step % _REPORT_EVERY == 0 or step == steps:
                job.progress(
                    epoch=epoch, step=step, steps=steps, loss=loss, device=device, peak_memory_mb=_peak_memory_mb()
                )

        trainer = Trainer(load_module(base.path, device), plan, examples, held_out, stepped)
        name = own_name(job.job)
        folder = self._work / name
        first = done if done and _state(folder, done - 1).is_file() else 0
        with _storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if first:
            trainer.restore(_state(folder, first - 1))
        shape = StoredDecoder(base.path).shape
        for epoch in range(first, plan.training.n_epochs):
            metrics = trainer.epoch(epoch)
            state = merged_state(trainer.module, plan, lambda: load_module(base.path, "cpu"))
            source = TrainedSource(base, TrainedDecoder(shape, state), _precision(plan, base), job.job.job_id, epoch)
            stored = self._store.add(source, name=f"{name}-{epoch}")
            with _storage_errors(folder):
                path = self._keep_adapter(trainer.module, plan, folder, epoch) or stored.path
                trainer.save(_state(folder, epoch))
            if epoch >= done:
                yield TrainedEpoch(
                    epoch, stored.name, str(path), metrics.train_loss, metrics.validation_loss, metrics.perplexity
                )
            # Not before the epoch is written down: an attempt killed until then goes on from the state before it.
            for old in folder.glob("state-*"):
                if old != _state(folder, epoch):
                    old.unlink()
        self.forget(job.job)

    def forget(self, job: Job) -> None:
        for state_file in (self._work / own_name(job)).glob("state-*"):
            state_file.unlink(missing_ok=True)

    def _examples(self, plan: Plan, base: StoredModel, rows: Sequence[JsonObject]) -> Sequence[Any]:
        from backends.training.examples import Reader, packed

        config = read_model_config(base.path)
        assert isinstance(config, DecoderConfig)  # noqa: S101 - `check` has seen to it
        data = plan.training.data_config
        language = load_language(base.path, config, config.context_length, 1.0)
        reader = Reader(language, base.name, self._settings.max_tokens, on_input=data.train_on_input)
        if plan.preference is not None:
            return list(reader.pairs(rows))
        examples = reader.examples(rows, data.data_format)
        longest = min(self._settings.max_tokens, config.context_length)
        return list(packed(examples, longest) if data.packed else examples)

    def _keep_adapter(self, module: Any, plan: Plan, folder: Path, epoch: int) -> Path | None:
        """Write the adapters of an epoch as peft reads them; None where there are none."""
        if not isinstance(plan.method, Lora):
            return None
        chosen = self._checkpoint_dir(plan)
        target = (folder if chosen is None else chosen / folder.name) / f"epoch-{epoch}"
        partial = target.with_name(f".{target.name}.partial")
        for left in (partial, target):
            shutil.rmtree(left, ignore_errors=True)
        module.save_pretrained(str(partial))
        partial.rename(target)
        return target

    def _checkpoint_dir(self, plan: Plan) -> Path | None:
        """The directory that a request names, below a root of the settings. Raises Forbidden, BadRequest."""
        if not plan.checkpoint_dir:
            return None
        where = "/checkpoint_dir"
        if "\0" in plan.checkpoint_dir or not Path(plan.checkpoint_dir).is_absolute():
            raise BadRequest("checkpoint_dir must be an absolute path", where=where)
        path = Path(plan.checkpoint_dir).resolve()
        for root in self._settings.checkpoint_roots:
            if path.is_relative_to(root.expanduser().resolve()):
                return path
        raise Forbidden(
            "checkpoint_dir is not below a directory of `checkpoint_roots`, an option of the post_training provider",
            where=where,
        )

    def _device(self, torch: Any) -> str:
        wanted = self._settings.device
        if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
            return "cpu"
        if not torch.cuda.is_available():
            raise Unsupported("the settings want CUDA for fine-tuning, and torch finds none here")
        return "cuda"


def _state(folder: Path, epoch: int) -> Path:
    """Where the state after an epoch lies, from which a later attempt goes on."""
    return folder / f"state-{epoch}.pt"


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Raises StorageFull, Unavailable: the folder cannot be written."""
    try:
        yield
    except StackError:
        raise
    except Exception as error:  # the libraries that write have classes of their own, with the system's words in them
        cause = error
        while not isinstance(cause, OSError) and isinstance(cause.__context__, Exception):
            cause = cause.__context__
        code = cause.errno if isinstance(cause, OSError) else None
        full = [number for number in _NO_ROOM if code == number or f"(os error {number})" in str(error)]
        if full:
            raise StorageFull(
                f"the state of the training cannot be written: {os.strerror(full[0])}", internal=str(folder)
            ) from error
        if isinstance(cause, PermissionError):
            raise Unavailable(
                f"the state of the training cannot be written: {cause.strerror}",
                retry_after_s=None,
                internal=str(folder),
            ) from error
        raise


def own_name(job: Job) -> str:
    """What the job's directory and models are called: no other job's are, whatever its id and its owner are.

    Ids are free texts of clients: as a path one could lead anywhere, and two owners may have the same.
    """
    return f"training-{hashlib.sha256(json.dumps([job.owner, job.job_id]).encode()).hexdigest()[:32]}"


def _precision(plan: Plan, base: StoredModel) -> Precision:
    return plan.method.precision if isinstance(plan.method, Quantised) else base.manifest.precision


def _peak_memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
