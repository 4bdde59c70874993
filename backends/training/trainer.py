"""The ModelTrainer port with torch: models of our own store, trained in this process."""

from __future__ import annotations

import importlib.util
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backends.errors import BadRequest, Forbidden, Unsupported
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
        folder = self._work / quote(job.job.owner, safe="") / quote(job.job.job_id, safe="")
        folder.mkdir(parents=True, exist_ok=True)
        first = done if done and (folder / f"state-{done - 1}.pt").is_file() else 0
        if first:
            trainer.restore(folder / f"state-{first - 1}.pt")
        shape = StoredDecoder(base.path).shape
        for epoch in range(first, plan.training.n_epochs):
            metrics = trainer.epoch(epoch)
            state = merged_state(trainer.module, plan, lambda: load_module(base.path, "cpu"))
            source = TrainedSource(base, TrainedDecoder(shape, state), _precision(plan, base), job.job.job_id, epoch)
            stored = self._store.add(source, name=f"{quote(job.job.owner, safe='')}{job.job.job_id}-{epoch}")
            path = self._keep_adapter(trainer.module, plan, folder, epoch) or stored.path
            trainer.save(folder / f"state-{epoch}.pt")
            for old in folder.glob("state-*.pt"):
                if old.name != f"state-{epoch}.pt":
                    old.unlink()
            if epoch >= done:
                yield TrainedEpoch(
                    epoch, stored.name, str(path), metrics.train_loss, metrics.validation_loss, metrics.perplexity
                )
        for state_file in folder.glob("state-*.pt"):
            state_file.unlink()

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
        target = (self._checkpoint_dir(plan) or folder) / f"epoch-{epoch}"
        shutil.rmtree(target, ignore_errors=True)
        module.save_pretrained(str(target))
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


def _precision(plan: Plan, base: StoredModel) -> Precision:
    return plan.method.precision if isinstance(plan.method, Quantised) else base.manifest.precision


def _peak_memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
