"""A BERT sentence encoder from a Hugging Face (sentence-transformers) folder: its sizes and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backends.errors import CorruptModel, Unsupported
from backends.onnx.config import Pooling
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.quantise import Float32
from backends.onnx.convert.safetensors import FolderWeights

CONFIG = "config.json"
POOLING_CONFIG = "1_Pooling/config.json"
MAX_LAYERS = 512
HARMLESS = ("benign", "safe")

_LAYER_MATRICES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_LAYER_NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes and constants. positions: rows of the position table; max_tokens: longest text the authors allow;
    epsilon: of the layer norms."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocab: int
    positions: int
    max_tokens: int
    epsilon: float
    pooling: Pooling
    pad_token_id: int


class EncoderSource:
    """The folder, opened and checked.

    Raises (constructor):
        Unsupported: another architecture or a variant of this one. CorruptModel: configuration and tensors disagree.
    """

    def __init__(self, folder: ModelFolder) -> None:
        config = folder.json(CONFIG)
        self._weights = FolderWeights(folder)
        found = self._weights.shapes
        self._prefix = "" if "embeddings.word_embeddings.weight" in found else "bert."
        self.shape = _shape(folder, config)
        s = self.shape
        expected: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (s.vocab, s.hidden),
            "embeddings.position_embeddings.weight": (s.positions, s.hidden),
            "embeddings.LayerNorm.weight": (s.hidden,),
            "embeddings.LayerNorm.bias": (s.hidden,),
        }
        for i in range(s.layers):
            for kind, name in _LAYER_MATRICES.items():
                outputs = s.inner if kind == "up" else s.hidden
                expected[f"encoder.layer.{i}.{name}.weight"] = (outputs, s.inner if kind == "down" else s.hidden)
                expected[f"encoder.layer.{i}.{name}.bias"] = (outputs,)
            for name in _LAYER_NORMS.values():
                expected[f"encoder.layer.{i}.{name}.weight"] = expected[f"encoder.layer.{i}.{name}.bias"] = (s.hidden,)
        for name, shape in expected.items():
            if found.get(self._prefix + name) != shape:
                got = found.get(self._prefix + name)
                raise CorruptModel(CONFIG, f"tensor {name} has the shape {got}, the configuration wants {shape}")
        types = found.get(f"{self._prefix}embeddings.token_type_embeddings.weight", ())
        if len(types) != 2 or types[0] < 1 or types[1] != s.hidden:
            raise CorruptModel(CONFIG, f"the token type table has the shape {types}")

    def embeddings(self) -> tuple[Float32, Float32]:
        """Word table [vocab, hidden], and position table [positions, hidden] with token type 0 added to each row."""
        words = self._get("embeddings.word_embeddings.weight")
        positions = self._get("embeddings.position_embeddings.weight")
        return words, positions + self._get("embeddings.token_type_embeddings.weight")[:1]

    def embedding_norm(self) -> tuple[Float32, Float32]:
        """Weight and bias, each [hidden]."""
        return self._get("embeddings.LayerNorm.weight"), self._get("embeddings.LayerNorm.bias")

    def linear(self, layer: int, kind: str) -> tuple[Float32, Float32]:
        """Matrix [outputs, inputs] and bias [outputs] of `kind`: q, k, v, o, up or down."""
        name = f"encoder.layer.{layer}.{_LAYER_MATRICES[kind]}"
        return self._get(f"{name}.weight"), self._get(f"{name}.bias")

    def norm(self, layer: int, kind: str) -> tuple[Float32, Float32]:
        """Weight and bias, each [hidden], of `kind`: attention_norm or output_norm."""
        name = f"encoder.layer.{layer}.{_LAYER_NORMS[kind]}"
        return self._get(f"{name}.weight"), self._get(f"{name}.bias")

    def _get(self, name: str) -> Float32:
        return self._weights.weight(self._prefix + name)


class ClassifierSource(EncoderSource):
    """The folder of a `BertForSequenceClassification`, opened and checked.

    labels: lower case, by column. benign: the one among them that calls a text harmless.

    Raises (constructor): as `EncoderSource`; Unsupported also where no label, or more than one, is such.
    """

    def __init__(self, folder: ModelFolder) -> None:
        super().__init__(folder)
        config = folder.json(CONFIG)
        if config.get("problem_type") not in (None, "single_label_classification"):
            raise Unsupported(f"problem_type {config['problem_type']!r}; a classifier must choose one label")
        self.labels = _labels(config)
        harmless = [label for label in self.labels if label in HARMLESS]
        if len(harmless) != 1:
            known = ", ".join(HARMLESS)
            raise Unsupported(f"a classifier with the labels {', '.join(self.labels)[:200]}; one must be of {known}")
        self.benign = harmless[0]
        hidden = self.shape.hidden
        for name, shape in {
            f"{self._prefix}pooler.dense.weight": (hidden, hidden),
            f"{self._prefix}pooler.dense.bias": (hidden,),
            "classifier.weight": (len(self.labels), hidden),
            "classifier.bias": (len(self.labels),),
        }.items():
            got = self._weights.shapes.get(name)
            if got != shape:
                raise CorruptModel(CONFIG, f"tensor {name} has the shape {got}, the configuration wants {shape}")

    def pooler(self) -> tuple[Float32, Float32]:
        """Matrix [hidden, hidden] and bias [hidden] between the first token's state and the head."""
        return self._get("pooler.dense.weight"), self._get("pooler.dense.bias")

    def head(self) -> tuple[Float32, Float32]:
        """Matrix [labels, hidden] and bias [labels]."""
        return self._weights.weight("classifier.weight"), self._weights.weight("classifier.bias")


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    found = config.get("id2label")
    if not isinstance(found, dict) or sorted(found) != sorted(str(i) for i in range(len(found))) or len(found) < 2:
        raise CorruptModel(CONFIG, "id2label does not number two or more labels from 0")
    labels = tuple(str(found[str(i)]).lower() for i in range(len(found)))
    if len(set(labels)) != len(labels):
        raise CorruptModel(CONFIG, "id2label has a label twice")
    return labels


def _shape(folder: ModelFolder, config: dict[str, Any]) -> EncoderShape:
    if config.get("model_type") != "bert":
        raise Unsupported(f"model_type {config.get('model_type')!r} as an encoder; 'bert' can be converted")
    if config.get("hidden_act") != "gelu":
        raise Unsupported(f"hidden_act {config.get('hidden_act')!r} in a BERT encoder; it must be 'gelu'")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"position_embedding_type {config['position_embedding_type']!r}; it must be 'absolute'")
    positions = positive_integer(config, "max_position_embeddings", CONFIG)
    hidden, heads = (
        positive_integer(config, "hidden_size", CONFIG),
        positive_integer(config, "num_attention_heads", CONFIG),
    )
    if hidden % heads:
        raise CorruptModel(CONFIG, f"hidden size {hidden} is no multiple of {heads} attention heads")
    layers = positive_integer(config, "num_hidden_layers", CONFIG)
    if layers > MAX_LAYERS:
        raise CorruptModel(CONFIG, f"num_hidden_layers is {layers}, at most {MAX_LAYERS} are allowed")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise CorruptModel(CONFIG, f"layer_norm_eps is {epsilon!r}")
    pad = config.get("pad_token_id", 0)
    return EncoderShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        inner=positive_integer(config, "intermediate_size", CONFIG),
        vocab=positive_integer(config, "vocab_size", CONFIG),
        positions=positions,
        max_tokens=longest_text(folder, positions),
        epsilon=epsilon,
        pooling=pooling_of(folder),
        pad_token_id=pad if isinstance(pad, int) else 0,
    )


def _check_modules(folder: ModelFolder) -> None:
    names = folder.json_list("modules.json")
    known = ("Transformer", "Pooling", "Normalize")
    for module in names:
        kind = str(module.get("type") if isinstance(module, dict) else module).rpartition(".")[2]
        if kind not in known:
            raise Unsupported(f"sentence-transformers module {kind[:80]!r}; known are {', '.join(known)}")


def longest_text(folder: ModelFolder, positions: int) -> int:
    """Tokens of the longest text that a sentence-transformers folder allows, at most `positions`."""
    if folder.has("sentence_bert_config.json"):
        settings = folder.json("sentence_bert_config.json")
        if settings.get("max_seq_length") is not None:
            return min(positions, positive_integer(settings, "max_seq_length", "sentence_bert_config.json"))
    return positions


def pooling_of(folder: ModelFolder) -> Pooling:
    """How the states of the tokens become one vector. Raises Unsupported, for other modules behind the states too."""
    if folder.has("modules.json"):
        _check_modules(folder)
    if not folder.has(POOLING_CONFIG):
        return "mean"
    modes = {
        key for key, value in folder.json(POOLING_CONFIG).items() if key.startswith("pooling_mode_") and value is True
    }
    if modes == {"pooling_mode_mean_tokens"}:
        return "mean"
    if modes == {"pooling_mode_cls_token"}:
        return "cls"
    raise Unsupported(
        f"pooling {', '.join(sorted(modes)) or 'none'}; the mean of all tokens or the first can be converted"
    )


def positive_integer(config: dict[str, Any], key: str, file: str) -> int:
    """The number under `key`. Raises CorruptModel."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CorruptModel(file, f"{key} must be a positive whole number, not {value!r}")
    return value
