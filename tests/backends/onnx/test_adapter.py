"""LoRA adapters beside their base: logits of the merged model, same to the bit in any batch, one copy of weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import BadRequest, Conflict, CorruptModel, StackError, Unavailable, Unsupported
from backends.generation import collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.store import ModelStore
from backends.onnx.adapter import ADAPTER_FILE, Adapter, matrices, read_adapter
from backends.onnx.config import MODEL_FILE, DecoderConfig, Precision, read_model_config
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.adapter import convert_adapter
from backends.onnx.executor import OnnxExecutor
from backends.onnx.generator import OnnxTextGenerator
from backends.onnx.kv_cache import HostKvCache, KvLayout, kv_dtype
from backends.onnx.residency import Residency
from backends.onnx.shared_session import SharedSession
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.adapters import ALPHA, factors, peft_config, shared_session, write_merged, write_peft
from tests.backends.onnx.convert.architectures import CONFIGS, PROMPT, PROMPT_TEXT

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "phi3"]
SLOTS = 8
SETTINGS = EngineSettings(device="cpu", threads=2, slots=4, prefill_chunk=16)


def executor(directory: Path, weights: SharedSession) -> OnnxExecutor:
    config = read_model_config(directory)
    assert isinstance(config, DecoderConfig)
    layout = KvLayout(config.layers, SLOTS, config.kv_heads, 64, config.head_dim, kv_dtype(config.kv_dtype))
    return OnnxExecutor(weights, HostKvCache(layout), config.vocab, matrices(directory / MODEL_FILE))


def logits(run: OnnxExecutor, adapter: Adapter | None = None, slot: int = 0) -> np.ndarray:
    run.begin(slot, adapter)
    return run.prefill(slot, np.array(PROMPT), 0, rows=len(PROMPT)).copy()


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def built(directory: Path, family: str, precision: Precision, rank: int, seed: int = 5) -> tuple[Path, Adapter, Path]:
    """The converted base, an adapter for it, and the merged model in float32."""
    config = CONFIGS[family]
    changes = factors(config, rank, seed)
    source = architectures.write_folder(directory / "source", config)
    convert_decoder(source, directory / "base", precision=precision)
    convert_adapter(
        write_peft(directory / "peft", changes, peft_config(rank)), directory / "base", directory / "adapter"
    )
    convert_decoder(
        write_merged(directory / "merging", config, changes, ALPHA / rank), directory / "merged", precision="fp32"
    )
    return directory / "base", read_adapter(directory / "adapter"), directory / "merged"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 4e-2), ("int4", 0.5)])
def test_base_and_adapter_have_the_logits_of_the_merged_model(
    tmp_path: Path, family: str, precision: Precision, tolerance: float
) -> None:
    directory, adapter, merged = built(tmp_path, family, precision, rank=8)
    weights = shared_session(directory)
    run = executor(directory, weights)
    plain = logits(run)
    weights.add(adapter)
    changed = logits(run, adapter)
    expected = logits(executor(merged, shared_session(merged)))
    assert error(changed, expected) < tolerance
    assert error(plain, expected) > 1.5 * error(changed, expected)
    assert np.array_equal(logits(run), plain), "the base answers differently beside an adapter"


@pytest.mark.parametrize("rank", [1, 3, 8, 40])
def test_an_adapters_sequences_are_the_same_alone_and_together_and_however_cut(tmp_path: Path, rank: int) -> None:
    directory, adapter, _ = built(tmp_path, "llama", "int8", rank)
    weights = shared_session(directory)
    weights.add(adapter)
    run = executor(directory, weights)
    whole = logits(run, adapter)[-1].copy()
    for cut in (2, 5, 13, 30):
        run.begin(1, adapter)
        run.prefill(1, np.array(PROMPT[:cut]), 0, rows=0)
        (found,) = run.prefill(1, np.array(PROMPT[cut:]), cut, rows=1)
        assert np.array_equal(found, whole)
    assert_the_same_alone_and_together(run, [adapter, adapter, adapter])


def assert_the_same_alone_and_together(run: OnnxExecutor, adapters: list[Adapter | None]) -> None:
    """One sequence with each of the adapters, of different lengths."""
    prompts = [PROMPT[slot % 5 : 4 + 3 * slot] for slot in range(len(adapters))]
    past = np.array([len(prompt) for prompt in prompts])
    alone = []
    for slot, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True)):
        run.begin(slot, adapter)
        run.prefill(slot, np.array(prompt), 0, rows=1)
        alone.append(run.decode(slot, np.array([7]), past[slot : slot + 1])[0].copy())
    together = run.decode(0, np.full(len(adapters), 7), past)
    for row, expected in zip(together, alone, strict=True):
        assert np.array_equal(row, expected)


@pytest.mark.parametrize("ranks", [(8, 8, 8), (3, 20, 40), (16, 40, 128)], ids=str)
def test_several_adapters_and_the_base_decode_together_to_the_bit_as_alone(
    tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    """Also those that are too wide to share a run."""
    config = CONFIGS["llama"]
    directory = tmp_path / "base"
    convert_decoder(architectures.write_folder(tmp_path / "source", config), directory, precision="int8")
    weights = shared_session(directory)
    run = executor(directory, weights)
    adapters: list[Adapter | None] = [None]
    for seed, rank in enumerate(ranks):
        changes = factors(config, rank, seed, "[qv]_proj" if seed == 1 else ".*_proj")
        convert_adapter(write_peft(tmp_path / f"{seed}", changes, peft_config(rank)), directory, tmp_path / f"a{seed}")
        adapter = read_adapter(tmp_path / f"a{seed}")
        weights.add(adapter)
        adapters.append(adapter)
        assert_the_same_alone_and_together(run, [adapter, None])
    assert_the_same_alone_and_together(run, adapters)
    assert_the_same_alone_and_together(run, [*adapters[::-1], *adapters[1:]])
    assert adapters[1] is not None
    weights.remove(adapters[1])
    assert_the_same_alone_and_together(run, adapters[2:])


def test_the_default_model_decodes_with_several_adapters_to_the_bit_as_with_each_alone(smollm2_dir: Path) -> None:
    """The shapes of a real model, at which ONNX Runtime's products are cut into other pieces than at small ones."""
    sizes, random = matrices(smollm2_dir / MODEL_FILE), np.random.default_rng(0)
    weights = shared_session(smollm2_dir)
    run = executor(smollm2_dir, weights)
    adapters: list[Adapter | None] = [None, None]
    for rank in (5, 16, 24):
        shapes = {name: ((inputs, rank), (rank, outputs)) for name, (inputs, outputs) in sizes.items()}
        adapter = Adapter(
            {n: tuple((random.normal(size=s) / 50).astype(np.float32) for s in pair) for n, pair in shapes.items()}  # type: ignore[misc]
        )
        weights.add(adapter)
        adapters.append(adapter)
    assert_the_same_alone_and_together(run, [*adapters, *adapters[2:]])
    plain = executor(smollm2_dir, shared_session(smollm2_dir))
    assert np.array_equal(logits(run), logits(plain)), "the base answers differently beside adapters"


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    a, b = np.zeros((64, 4), np.float32), np.full((4, 64), np.inf, np.float32)
    Adapter({"0.o": (a, b)}).save(tmp_path / ADAPTER_FILE)
    with pytest.raises(CorruptModel, match="not finite"):
        read_adapter(tmp_path)


def test_arrays_that_are_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    """Fault 9."""
    file = tmp_path / ADAPTER_FILE
    arrays: dict[str, Any] = {"0.o.a": np.zeros((1 << 20, 8), np.float32), "0.o.b": np.zeros((8, 64), np.float32)}
    np.savez_compressed(file, **arrays)
    with pytest.raises(CorruptModel, match="compressed"):
        read_adapter(tmp_path)
    np.savez(file, **{"0.o.a": np.zeros((64, 8), np.float32), "0.o.b": np.zeros((8, 64), np.float32)})
    claimed = file.read_bytes().replace(b"(64, 8), }          ", b"(99999999999, 999), }")
    assert claimed != file.read_bytes()
    file.write_bytes(claimed)
    with pytest.raises(CorruptModel, match="cannot be read"):
        read_adapter(tmp_path)


def test_factors_of_adapters_that_no_run_has_wanted_for_long_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.onnx.executor.BATCHES", 2)
    directory, adapter, _ = built(tmp_path, "llama", "int8", 8)
    weights = shared_session(directory)
    run = executor(directory, weights)
    adapters = [Adapter(adapter.factors) for _ in range(4)]
    for each in adapters:
        weights.add(each)
    for _ in range(2):
        assert_the_same_alone_and_together(run, [*adapters, None])
    assert len(run._batches) == 2
    bound = {id(each.batch) for kept in (run._decode_runs, run._prefill_bindings) for each in kept.values()}
    assert bound <= {id(None), *map(id, run._batches.values())}


def test_without_an_adapter_in_the_batch_the_plain_graph_runs(tmp_path: Path) -> None:
    directory, adapter, _ = built(tmp_path, "llama", "int8", 8)
    weights = shared_session(directory)
    weights.add(adapter)
    run = executor(directory, weights)
    assert weights.wide is not None
    weights.wide = None  # whoever needs it now fails
    logits(run)
    assert run.decode(0, np.array([7]), np.array([len(PROMPT)])).shape == (1, CONFIGS["llama"]["vocab_size"])
    with pytest.raises(AssertionError):
        logits(run, adapter)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two PEFT folders, `one` and `two`, of the base `tiny`, and both merged."""
    root, config = tmp_path_factory.mktemp("adapters"), CONFIGS["llama"]
    architectures.write_folder(root / "tiny", config)
    for seed, (name, modules) in enumerate([("one", "[qv]_proj"), ("two", ".*_proj")]):
        changes = factors(config, 20, seed, modules)
        write_peft(root / name, changes, peft_config(20, use_rslora=True))
        write_merged(root / f"{name}-merged", config, changes, ALPHA / 20**0.5)
    return root


@pytest.fixture
def store(folders: Path, tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.pull(str(folders / "tiny"), precision="fp32")
    return store


@pytest.fixture
def generators() -> Iterator[Callable[..., OnnxTextGenerator]]:
    opened: list[OnnxTextGenerator] = []

    def generator(store: ModelStore, **options: Any) -> OnnxTextGenerator:
        opened.append(OnnxTextGenerator(store, SETTINGS, **options))
        return opened[-1]

    yield generator
    for one in opened:
        one.close()


def ask(model: str, prompt: str = PROMPT_TEXT) -> GenerateRequest:
    return GenerateRequest(model, TextPrompt(prompt), Sampling(max_tokens=12), logprobs=1)


def test_base_and_adapters_are_served_beside_each_other_as_their_merged_models_would_be(
    folders: Path, store: ModelStore, context: CallContext, generators: Callable[..., OnnxTextGenerator]
) -> None:
    for name in ("one", "two"):
        store.pull(str(folders / name))
        store.pull(str(folders / f"{name}-merged"), precision="fp32")
    merged = generators(store)
    prompts = [PROMPT_TEXT * 2, "A", PROMPT_TEXT]
    expected = {
        (name, prompt): collect(merged.generate(context, ask(f"{name}-merged".replace("tiny-merged", "tiny"), prompt)))
        for name in ("tiny", "one", "two")
        for prompt in prompts
    }
    served = generators(store)
    running = {key: served.generate(context, ask(*key)) for key in expected}
    found = {key: collect(events) for key, events in running.items()}
    for key, answer in expected.items():
        assert found[key].text == answer.text, key
        assert np.allclose(
            [max(entry.values()) for entry in found[key].logprobs],
            [max(entry.values()) for entry in answer.logprobs],
            atol=1e-3,
        )
    assert len({found[name, PROMPT_TEXT].text for name in ("tiny", "one", "two")}) == 3
    again = {key: collect(served.generate(context, ask(*key))) for key in expected}
    assert {key: answer.text for key, answer in again.items()} == {key: a.text for key, a in found.items()}
    assert served.stats().keys() == {"tiny"}
    assert served.stats()["tiny"].reused_tokens > 0
    assert len({id(engine.scheduler) for _, engine in served._engines()}) == 1


def test_an_adapter_takes_no_copy_of_its_base_on_disk_or_in_the_budget(
    folders: Path, store: ModelStore, context: CallContext, generators: Callable[..., OnnxTextGenerator]
) -> None:
    model = store.pull(str(folders / "one"))
    assert sorted(model.manifest.files) == [ADAPTER_FILE, "config.json"]
    assert model.manifest.base is not None
    assert (model.manifest.base.name, model.manifest.base.source) == ("tiny", store.get("tiny").manifest.source)
    store.verify("one")
    store.pull(str(folders / "two"))
    residency = Residency(budget_bytes=sum(store.size(name) for name in ("tiny", "one", "two")))
    generator = generators(store, residency=residency)
    for name in ("one", "two", "tiny"):
        collect(generator.generate(context, ask(name)))
    assert residency.loaded().keys() == {"tiny", "one", "two"}
    while any(model.busy for model in residency.loaded().values()):
        threading.Event().wait(0.01)
    assert residency.unload("tiny")
    assert residency.loaded() == {}, "an adapter stayed without its base"


def test_a_budget_for_the_base_alone_is_said_to_be_too_small_for_its_adapter(
    folders: Path, store: ModelStore, context: CallContext, generators: Callable[..., OnnxTextGenerator]
) -> None:
    store.pull(str(folders / "one"))
    generator = generators(store, residency=Residency(budget_bytes=store.size("tiny") + 1))
    for _ in range(2):  # whether the base is loaded or not
        with pytest.raises(Unavailable, match=r"one with its base tiny takes .* engine\.memory_mb is") as refused:
            generator.generate(context, ask("one"))
        assert refused.value.retry_after_s is None
        assert collect(generator.generate(context, ask("tiny"))).completion_tokens


def test_a_base_is_not_removed_or_replaced_under_its_adapters(
    folders: Path, store: ModelStore, context: CallContext, generators: Callable[..., OnnxTextGenerator]
) -> None:
    store.pull(str(folders / "one"))
    with pytest.raises(Conflict, match="the base of one"):
        store.remove("tiny")
    assert store.pull(str(folders / "one")).manifest == store.get("one").manifest
    generator = generators(store)
    store.pull(str(folders / "tiny"), precision="int8")
    assert collect(generator.generate(context, ask("one"))).completion_tokens
    manifest = store.root / "one" / "manifest.json"
    source = store.get("tiny").manifest.source.sha256
    manifest.write_text(manifest.read_text().replace(source, "0" * 64))
    with pytest.raises(CorruptModel, match="other weights"):
        generators(store).generate(context, ask("one"))
    (store.root / "tiny").rename(store.root / "away")
    with pytest.raises(CorruptModel, match="tiny is not in the model store"):
        generators(store).generate(context, ask("one"))


def changed(**more: Any) -> Callable[[Path], Path]:
    return lambda folder: write_peft(folder, factors(CONFIGS["llama"], 4, 0), peft_config(4, **more))


def other(changes: dict[str, Any]) -> Callable[[Path], Path]:
    return lambda folder: write_peft(folder, changes, peft_config(4))


A, B = np.zeros((4, 64), np.float32), np.zeros((64, 4), np.float32)


@pytest.mark.parametrize(
    ("write", "refusal", "message"),
    [
        (changed(peft_type="IA3"), Unsupported, "peft_type 'IA3'"),
        (changed(use_dora=True), Unsupported, "use_dora"),
        (changed(bias="all"), Unsupported, "bias"),
        (changed(modules_to_save=["lm_head"]), Unsupported, "modules_to_save"),
        (changed(rank_pattern={"q_proj": 8}), Unsupported, "rank_pattern"),
        (changed(init_lora_weights="pissa_niter_4"), Unsupported, "changes the base"),
        (changed(r=0), CorruptModel, "r must be"),
        (changed(base_model_name_or_path="nobody/none"), BadRequest, "nobody/none"),
        (changed(base_model_name_or_path=None), BadRequest, "names no base"),
        (other({"model.embed_tokens.weight": (A, B)}), Unsupported, "embed_tokens"),
        (other({"model.layers.9.self_attn.q_proj.weight": (A, B)}), CorruptModel, "layer 9"),
        (other({"model.layers.0.self_attn.w_proj.weight": (A, B)}), CorruptModel, "w_proj of layer 0"),
        (other({"model.layers.0.self_attn.q_proj.weight": (A[:, :32], B)}), CorruptModel, "do not fit the base"),
        (other({"model.layers.0.mlp.up_proj.weight": (A, B)}), CorruptModel, "do not fit the base"),
        (other({}), CorruptModel, "changes nothing"),
    ],
)
def test_what_is_no_adapter_of_the_base_is_refused(
    store: ModelStore, tmp_path: Path, write: Callable[[Path], Path], refusal: type[StackError], message: str
) -> None:
    folder = write(tmp_path / "refused")
    with pytest.raises(refusal, match=message):
        store.pull(str(folder))
    assert [model.name for model in store.list()] == ["tiny"]


def test_a_base_is_named_for_an_adapter_alone_and_is_none_itself(
    store: ModelStore, folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match="is no adapter"):
        store.pull(str(folders / "tiny"), name="again", base="tiny")
    store.pull(str(folders / "one"), name="first", base="tiny")
    with pytest.raises(BadRequest, match="adapter itself"):
        store.pull(str(folders / "two"), base="first")
    store.pull(str(folders / "tiny"), name="half", precision="fp16")
    with pytest.raises(Unsupported, match="fp16"):
        store.pull(str(folders / "two"), base="half")


def test_a_damaged_adapter_is_refused_with_its_file(
    folders: Path, store: ModelStore, context: CallContext, generators: Callable[..., OnnxTextGenerator]
) -> None:
    file = store.pull(str(folders / "one")).path / ADAPTER_FILE
    file.write_bytes(bytes(file.stat().st_size))
    generator = generators(store)
    with pytest.raises(CorruptModel, match=ADAPTER_FILE):
        generator.generate(context, ask("one"))
    assert collect(generator.generate(context, ask("tiny"))).completion_tokens
