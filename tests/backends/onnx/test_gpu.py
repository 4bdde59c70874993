"""ONNX Runtime for GPUs on a machine that has none: what is asked of the CPU works, and CUDA is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import Unavailable
from backends.generation import Answer, collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.store import ModelStore
from backends.onnx.generator import OnnxTextGenerator
from backends.onnx.session import open_session, runtime_distribution
from tests.backends.onnx.convert import tiny

pytestmark = pytest.mark.gpu
HERE = CallContext("gpu")
NO_CUDA = "device cuda is not available: ONNX Runtime could not load its CUDA provider"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """The model `half` in fp16 and `whole` in int8."""
    root = tmp_path_factory.mktemp("models")
    folder = tiny.write_folder(root / "tiny", tiny.CONFIG, tiny.weights(tiny.CONFIG, tiny.HUGGING_FACE_NAMES))
    store = ModelStore(root / "store", catalog={})
    store.pull(str(folder), name="half", precision="fp16")
    store.pull(str(folder), name="whole")
    return store


@pytest.fixture
def generator(store: ModelStore) -> Iterator[Callable[[str], OnnxTextGenerator]]:
    opened: list[OnnxTextGenerator] = []

    def make(device: str) -> OnnxTextGenerator:
        opened.append(OnnxTextGenerator(store, EngineSettings.model_validate({"device": device, "slots": 2})))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def answer(generator: OnnxTextGenerator, model: str) -> Answer:
    return collect(generator.generate(HERE, GenerateRequest(model, TextPrompt("A ship"), Sampling(max_tokens=8))))


def test_the_distribution_is_that_for_gpus_and_claims_cuda() -> None:
    import onnxruntime

    assert runtime_distribution() == "onnxruntime-gpu"
    assert "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_cuda_is_refused_by_name_where_the_session_would_run_on_the_cpu(
    store: ModelStore, generator: Callable[[str], OnnxTextGenerator]
) -> None:
    with pytest.raises(Unavailable, match=NO_CUDA) as refused:
        open_session(store.path("half") / "model.onnx", "cuda", 1)
    assert refused.value.retry_after_s is None
    with pytest.raises(Unavailable, match=NO_CUDA):
        answer(generator("cuda"), "half")
    with pytest.raises(Unavailable, match="convert it with precision fp16"):
        answer(generator("cuda"), "whole")


@pytest.mark.parametrize(("model", "reason"), [("half", "could not load its CUDA"), ("whole", "precision fp16")])
def test_auto_falls_back_to_the_cpu_with_the_same_answer_and_a_reason(
    generator: Callable[[str], OnnxTextGenerator], model: str, reason: str
) -> None:
    plain, fallen = generator("cpu"), generator("auto")
    assert answer(fallen, model) == answer(plain, model)
    assert fallen.devices()[model].device == "cpu"
    assert reason in fallen.devices()[model].reason
