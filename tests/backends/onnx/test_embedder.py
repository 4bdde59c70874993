"""The embedder on the real MiniLM."""

from __future__ import annotations

import base64
import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.config import EngineSettings
from backends.context import CallContext
from backends.engine.remote import RemoteEmbedder
from backends.errors import (
    BadRequest,
    Cancelled,
    CorruptModel,
    DeadlineExceeded,
    Overloaded,
    Unavailable,
    UnknownReference,
)
from backends.inference import EmbedRequest, ModelLimits, TokenizeRequest
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.models.store import ModelStore
from backends.onnx.config import EncoderConfig
from backends.onnx.embedder import OnnxEmbedder, batches
from backends.onnx.encoder import OnnxEncoder
from backends.ports import Embedder
from tests.backends.engine.running import connected, engine_process
from tests.backends.models.conftest import write_tiny_bert

DEADLINE_S = 60.0
SETTINGS = EngineSettings(threads=2)
ONE_THREAD = EngineSettings(threads=1)
REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm_sentence_transformers.json").read_text())
TEXTS: tuple[str, ...] = tuple(REFERENCE["texts"])
VECTORS: NDArray[np.float32] = np.stack([np.frombuffer(base64.b64decode(v), "<f4") for v in REFERENCE["vectors"]])

Watch = Callable[[Sequence[Sequence[int]]], None]


class WatchedEncoder(OnnxEncoder):
    """The real encoder, which tells before each run what it will run."""

    watch: Watch = staticmethod(lambda batch: None)

    def run(self, batch: Sequence[Sequence[int]], *, alone: bool = True) -> NDArray[np.float32]:
        self.watch(batch)
        return super().run(batch, alone=alone)


@pytest.fixture(scope="module")
def shared(model_store: ModelStore) -> Iterator[OnnxEmbedder]:
    embedder = OnnxEmbedder(model_store, SETTINGS)
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def remote(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEmbedder]:
    with (
        engine_process(tmp_path_factory.mktemp("engine"), model_store.root, SETTINGS) as process,
        connected(process.address) as connection,
    ):
        yield RemoteEmbedder(connection)


@pytest.fixture(params=["shared", "remote"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    form: Embedder = request.getfixturevalue(request.param)
    return form


@pytest.fixture
def watched(model_store: ModelStore) -> Iterator[Callable[..., OnnxEmbedder]]:
    """Makes an embedder that calls `watch` before each run; one run per turn unless it has several threads."""
    made: list[OnnxEmbedder] = []

    def make(watch: Watch, settings: EngineSettings = ONE_THREAD, now: Callable[[], float] = time.time) -> OnnxEmbedder:
        def load(path: Path, config: EncoderConfig) -> OnnxEncoder:
            encoder = WatchedEncoder(path, config, "cpu", settings.threads)
            encoder.watch = watch
            return encoder

        made.append(OnnxEmbedder(model_store, settings, load=load, now=now))
        return made[-1]

    yield make
    for embedder in made:
        embedder.close()


def embed(embedder: Embedder, context: CallContext, *texts: str) -> NDArray[np.float32]:
    return embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, texts)).vectors()


def test_int8_vectors_are_near_those_of_sentence_transformers(embedder: Embedder, context: CallContext) -> None:
    cosines = (embed(embedder, context, *TEXTS) * VECTORS).sum(axis=1)
    assert cosines.mean() >= 0.9995
    assert cosines.min() >= 0.9985


def test_float32_vectors_are_those_of_sentence_transformers(model_store: ModelStore, context: CallContext) -> None:
    store = ModelStore(model_store.root / ".fp32")  # kept with the shared store and not part of it
    store.pull(DEFAULT_EMBEDDING_MODEL, precision="fp32")
    embedder = OnnxEmbedder(store, SETTINGS)
    np.testing.assert_allclose(embed(embedder, context, *TEXTS), VECTORS, atol=1e-5)
    embedder.close()


def test_a_cpu_without_vnni_computes_the_same(
    shared: OnnxEmbedder, model_store: ModelStore, context: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact kernel of such a CPU runs on every x86; elsewhere the setting does nothing."""
    monkeypatch.setattr("backends.onnx.session.integer_products_saturate", lambda: True)
    embedder = OnnxEmbedder(model_store, SETTINGS)
    np.testing.assert_allclose(embed(embedder, context, *TEXTS), embed(shared, context, *TEXTS), atol=1e-5)
    embedder.close()


def test_near_meanings_have_near_vectors(embedder: Embedder, context: CallContext) -> None:
    query, right, wrong = embed(
        embedder,
        context,
        "Can I send the goods back?",
        "Customers may return what they bought within a month.",
        "The moon orbits the earth in about 27 days.",
    )
    assert query @ right > query @ wrong + 0.3


def test_vectors_are_unit_float32_of_the_models_dimension(embedder: Embedder, context: CallContext) -> None:
    vectors = embed(embedder, context, *TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_order_of_the_texts_is_kept(embedder: Embedder, context: CallContext) -> None:
    order = random.Random(7).sample(range(len(TEXTS)), len(TEXTS))
    shuffled = embed(embedder, context, *(TEXTS[i] for i in order))
    np.testing.assert_allclose(shuffled, embed(embedder, context, *TEXTS)[order], atol=1e-5)


@pytest.mark.parametrize("budget", [64, 512, 8192])
def test_a_vector_does_not_depend_on_the_texts_beside_it(
    shared: OnnxEmbedder, model_store: ModelStore, context: CallContext, budget: int
) -> None:
    """Decided: 1e-5 per component; in fact float32 rounding of the padded attention, below 1e-7."""
    alone = np.concatenate([embed(shared, context, text) for text in TEXTS])
    embedder = OnnxEmbedder(model_store, EngineSettings(threads=2, embed_batch_tokens=budget))
    np.testing.assert_allclose(embed(embedder, context, *TEXTS), alone, atol=1e-5)
    embedder.close()


def test_the_same_call_gives_the_same_bytes(embedder: Embedder, context: CallContext) -> None:
    request = EmbedRequest(DEFAULT_EMBEDDING_MODEL, TEXTS)
    assert embedder.embed(context, request) == embedder.embed(context, request)


def test_no_texts_give_no_vectors(embedder: Embedder, context: CallContext) -> None:
    result = embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, ()))
    assert result.vectors().shape == (0, 384)
    assert result.tokens == 0


def test_a_model_that_pools_the_first_token_embeds_many_texts(tmp_path: Path, context: CallContext) -> None:
    folder = write_tiny_bert(tmp_path / "tiny")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    store = ModelStore(tmp_path / "store")
    store.pull(str(folder))
    result = OnnxEmbedder(store, SETTINGS).embed(context, EmbedRequest("tiny", ("one", "two three", "four")))
    assert result.vectors().shape == (3, 32)


def test_many_texts_are_embedded_and_their_tokens_counted(embedder: Embedder, context: CallContext) -> None:
    result = embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, ("one two three",) * 1000))
    assert result.tokens == 1000 * 5  # with [CLS] and [SEP]
    np.testing.assert_allclose(result.vectors(), np.repeat(result.vectors()[:1], 1000, axis=0), atol=1e-5)


def test_a_text_over_the_limit_is_cut_there(embedder: Embedder, context: CallContext) -> None:
    result = embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, ("word " * 100_000,)))
    assert result.tokens == 256
    cut, longer, shorter = embed(embedder, context, "word " * 254, "word " * 254 + "and more", "word " * 253 + "other")
    np.testing.assert_array_equal(cut, longer)
    assert not np.allclose(cut, shorter, atol=1e-4)


def test_the_text_of_a_special_token_is_plain_text(embedder: Embedder, context: CallContext) -> None:
    literal, special = (
        embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, (text,))).tokens for text in ("a [SEP] b", "a b")
    )
    assert literal > special + 1


def test_half_a_surrogate_pair_is_refused(shared: OnnxEmbedder, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        embed(shared, context, "fine", "not \ud800 fine")


def test_limits_are_those_of_the_model(embedder: Embedder) -> None:
    assert embedder.limits(DEFAULT_EMBEDDING_MODEL) == ModelLimits(context_length=256, embedding_dimension=384)


def test_a_model_that_is_not_there_is_an_unknown_reference(embedder: Embedder, context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="'absent'"):
        embedder.embed(context, EmbedRequest("absent", ("x",)))
    with pytest.raises(UnknownReference):
        embedder.limits("absent")


def test_a_language_model_does_not_embed(embedder: Embedder, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="is no embedding model"):
        embedder.embed(context, EmbedRequest(DEFAULT_LLM, ("x",)))


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_damaged_model_is_named_and_can_be_mended(
    minilm_dir: Path, tmp_path: Path, context: CallContext, file: str
) -> None:
    store = ModelStore(tmp_path)
    shutil.copytree(minilm_dir, tmp_path / DEFAULT_EMBEDDING_MODEL)
    sound = (minilm_dir / file).read_bytes()
    (tmp_path / DEFAULT_EMBEDDING_MODEL / file).write_bytes(b"\0" * len(sound))
    embedder = OnnxEmbedder(store, SETTINGS)
    with pytest.raises(CorruptModel, match=file):
        embed(embedder, context, "x")
    (tmp_path / DEFAULT_EMBEDDING_MODEL / file).write_bytes(sound)
    assert embed(embedder, context, "x").shape == (1, 384)
    embedder.close()


def test_a_model_is_loaded_once_when_it_is_first_asked_for(model_store: ModelStore, context: CallContext) -> None:
    loads: list[Path] = []

    def load(path: Path, config: EncoderConfig) -> OnnxEncoder:
        loads.append(path)
        return OnnxEncoder(path, config, "cpu", 2)

    embedder = OnnxEmbedder(model_store, SETTINGS, load=load)
    embedder.ping()
    embedder.limits(DEFAULT_EMBEDDING_MODEL)
    assert loads == []
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: embed(embedder, context, "x"), range(8), timeout=DEADLINE_S))
    assert len(loads) == 1
    assert all(np.array_equal(results[0], result) for result in results)
    embedder.close()


def test_calls_at_the_same_time_each_get_their_own_vectors(shared: OnnxEmbedder, context: CallContext) -> None:
    alone = embed(shared, context, *TEXTS)
    wanted = [random.Random(seed).choices(range(len(TEXTS)), k=5) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        got = pool.map(lambda rows: embed(shared, context, *(TEXTS[i] for i in rows)), wanted, timeout=DEADLINE_S)
    for rows, vectors in zip(wanted, got, strict=True):
        np.testing.assert_allclose(vectors, alone[rows], atol=1e-5)


def test_runs_stay_within_the_budget_of_padded_tokens(
    watched: Callable[..., OnnxEmbedder], context: CallContext
) -> None:
    runs: list[list[int]] = []
    settings = EngineSettings(threads=1, embed_batch_tokens=128)
    embedder = watched(lambda batch: runs.append([len(row) for row in batch]), settings)
    embed(embedder, context, *TEXTS)
    assert sum(map(len, runs)) == len(TEXTS)
    assert all(len(run) * max(run) <= 128 or len(run) == 1 for run in runs)
    assert max(map(len, runs)) > 4


def test_a_small_call_is_not_stuck_behind_a_huge_one(watched: Callable[..., OnnxEmbedder]) -> None:
    runs: list[str] = []
    first_run, small_queued = threading.Event(), threading.Event()
    small_thread = threading.local()

    def watch(batch: Sequence[Sequence[int]]) -> None:
        runs.append("small" if len(batch[0]) < 8 else "huge")
        if len(runs) == 1:
            first_run.set()
            assert small_queued.wait(DEADLINE_S)

    def now() -> float:
        # Read before tokenising (twice), before queueing and, in the queue, to wait for the deadline.
        small_thread.reads = getattr(small_thread, "reads", 0) + 1
        if small_thread.reads == 4 and threading.current_thread().name.startswith("small"):
            small_queued.set()
        return time.time()

    embedder = watched(watch, now=now)
    far = CallContext("x", deadline=time.time() + 3600)
    with ThreadPoolExecutor(1, "huge") as huge, ThreadPoolExecutor(1, "small") as small:
        all_of_it = huge.submit(embed, embedder, replace(far), *("word " * 200,) * 20)
        assert first_run.wait(DEADLINE_S)
        small.submit(embed, embedder, replace(far), "short").result(DEADLINE_S)
        all_of_it.result(DEADLINE_S)
    assert runs == ["huge", "small", *["huge"] * (len(runs) - 2)]
    assert len(runs) > 5


def test_a_turn_has_one_run_per_thread_at_the_same_time(
    watched: Callable[..., OnnxEmbedder], context: CallContext
) -> None:
    both = threading.Barrier(2)
    embedder = watched(lambda batch: both.wait(DEADLINE_S), EngineSettings(threads=2))
    assert embed(embedder, context, *("word " * 200,) * 8).shape == (8, 384)


def test_a_failed_run_fails_the_call_and_leaves_the_next_one_its_turn(
    watched: Callable[..., OnnxEmbedder], context: CallContext
) -> None:
    def watch(batch: Sequence[Sequence[int]]) -> None:
        if len(batch[0]) > 100:
            raise Unavailable("the encoder failed")

    embedder = watched(watch, EngineSettings(threads=2))
    with pytest.raises(Unavailable):
        embed(embedder, context, *("word " * 200,) * 8)
    assert embed(embedder, context, "short").shape == (1, 384)


def test_a_cancelled_call_stops_before_its_next_run(watched: Callable[..., OnnxEmbedder]) -> None:
    context = CallContext("x")
    runs: list[int] = []

    def watch(batch: Sequence[Sequence[int]]) -> None:
        runs.append(len(batch))
        context.cancellation.cancel()

    embedder = watched(watch)
    with pytest.raises(Cancelled):
        embed(embedder, context, *("word " * 200,) * 20)
    assert len(runs) == 1
    assert embed(watched(lambda batch: None), CallContext("y"), "x").shape == (1, 384)


def test_a_call_past_its_deadline_stops_before_its_next_run(watched: Callable[..., OnnxEmbedder]) -> None:
    runs: list[int] = []
    embedder = watched(lambda batch: runs.append(len(batch)), now=lambda: 100.0 + len(runs))
    with pytest.raises(DeadlineExceeded):
        embed(embedder, CallContext("x", deadline=101.5), *("word " * 200,) * 20)
    assert len(runs) == 2


def test_one_call_too_many_is_refused_at_once(watched: Callable[..., OnnxEmbedder], context: CallContext) -> None:
    running, go_on = threading.Event(), threading.Event()

    def watch(batch: Sequence[Sequence[int]]) -> None:
        running.set()
        assert go_on.wait(DEADLINE_S)

    embedder = watched(watch, EngineSettings(threads=1, queue=0))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(embed, embedder, context, "x")
        assert running.wait(DEADLINE_S)
        with pytest.raises(Overloaded):
            embed(embedder, context, "y")
        go_on.set()
        assert first.result(DEADLINE_S).shape == (1, 384)
    assert embed(embedder, context, "y").shape == (1, 384)


def test_a_closed_embedder_says_so(model_store: ModelStore, context: CallContext) -> None:
    embedder = OnnxEmbedder(model_store, SETTINGS)
    embed(embedder, context, "x")
    embedder.close()
    embedder.close()
    with pytest.raises(Unavailable, match="closed"):
        embedder.ping()
    with pytest.raises(Unavailable, match="closed"):
        embed(embedder, context, "x")


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([], 10, []),
        ([5, 2, 9, 2], 10, [[1, 3], [0], [2]]),
        ([20], 10, [[0]]),
        ([20, 1, 30], 10, [[1], [0], [2]]),
        ([5, 5, 5, 5], 10, [[0, 1], [2, 3]]),
    ],
)
def test_batches_are_sorted_and_within_the_budget(lengths: list[int], budget: int, expected: list[list[int]]) -> None:
    assert list(batches(lengths, budget)) == expected


def test_tokens_lie_where_the_text_has_them_and_special_tokens_are_plain_text(
    embedder: Embedder, context: CallContext
) -> None:
    texts = ("Un caf\u00e9 at 5\u20ac, please \U0001f600!", "", "[CLS] ignore [SEP]", "word " * 1000)
    result = embedder.tokenize(context, TokenizeRequest(DEFAULT_EMBEDDING_MODEL, texts))
    first, *_ = result.spans()
    assert [texts[0][begin:end] for begin, end in first] == [
        "Un", "caf\u00e9", "at", "5", "\u20ac", ",", "please", "\U0001f600", "!",
    ]  # fmt: skip
    assert result.counts() == [9, 0, 8, 1000]
    assert (result.room, result.exact) == (254, True)
    alone = embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, texts[:1]))
    assert alone.tokens == 9 + 2


def test_tokens_of_half_a_surrogate_pair_are_refused(embedder: Embedder, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        embedder.tokenize(context, TokenizeRequest(DEFAULT_EMBEDDING_MODEL, ("\ud800",)))
