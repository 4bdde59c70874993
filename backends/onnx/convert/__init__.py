"""Model files to ONNX graphs for the engine, with numpy and onnx only.

`convert_decoder` takes a GGUF file or a Hugging Face folder of one of the architectures in `decoder.py`,
`convert_encoder` a folder of a BERT sentence encoder, `convert_classifier` one of a BERT classifier,
`convert_ngram_classifier` the weights of a linear one, `import_genai` a folder that onnxruntime-genai built. All treat
their source as untrusted and write a directory that appears whole or not at all; `backends/onnx/config.py` describes
it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from tokenizers import Tokenizer

from backends.errors import CorruptModel
from backends.onnx.config import (
    CHAT_TEMPLATE_FILE,
    DATA_FILE,
    MODEL_FILE,
    NGRAMS_FILE,
    TOKENIZER_FILE,
    ClassifierConfig,
    DecoderConfig,
    EncoderConfig,
    NgramClassifierConfig,
    Precision,
    write_model_config,
)
from backends.onnx.convert import chat_files
from backends.onnx.convert.decoder import DecoderSource
from backends.onnx.convert.decoder_gguf import GgufDecoder
from backends.onnx.convert.decoder_graph import DecoderGraph
from backends.onnx.convert.decoder_huggingface import HuggingFaceDecoder
from backends.onnx.convert.encoder import ClassifierSource, EncoderSource, longest_text, pooling_of, positive_integer
from backends.onnx.convert.encoder_graph import ClassifierGraph, EncoderGraph
from backends.onnx.convert.exported_encoder import write_pooled
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.genai import GenaiFolder
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.graph import GraphBuilder
from backends.onnx.convert.ngram_classifier import WINDOW_WORDS, NgramClassifierSource, build_ngram_graph
from backends.onnx.convert.publish import published
from backends.onnx.ngrams import Vocabulary

__all__ = [
    "Progress",
    "convert_classifier",
    "convert_decoder",
    "convert_encoder",
    "convert_ngram_classifier",
    "convert_trained",
    "import_encoder",
    "import_genai",
]

Progress = Callable[[str, float], None]
"""Called with the stage ("weights", "files", "done") and the share of the whole that is done, 0 to 1."""


def convert_decoder(
    source: Path, target: Path, *, precision: Precision = "int8", progress: Progress | None = None
) -> None:
    """Write the model in `source`, a .gguf file or a Hugging Face folder, as the model directory `target`.

    An existing `target` is replaced.

    precision: "int8" and "int4" are weight-only, in blocks of 32, with float32 activations and KV cache (embedding and
    head are int8 in both); "fp32" is everything in float32. "fp16" is the whole graph and its KV cache in float16, for
    CUDA, whose attention takes no float32; the CPU provider runs it too, slowly.

    Inputs of the graph:
        input_ids int64 [batch, seq]: the tokens to run.
        seqlens_k int32 [batch]: for each sequence the tokens in its cache after this run, minus one.
        total_len int32 []: the largest of `seqlens_k`, plus one.
        logit_rows int64 [rows]: which rows get logits; row b * seq + s is token s of sequence b.
        past.{i}.k, past.{i}.v kv_dtype [batch, kv_heads, max_len, head_dim]: the KV cache of layer i.
    Outputs:
        logits float32 [rows, vocab].
        present.{i}.k, present.{i}.v: as `past`; bind them to the same memory, the run then writes only the new tokens.
    With a filled cache (seqlens_k >= seq) and seq > 1, batch must be 1: the attention kernel demands it.

    Raises:
        Unsupported: the architecture, tokenizer or a feature of it is not one that this converter knows; it is named.
        CorruptModel: the files contradict themselves or each other.
    """
    report = progress or _silent
    files: chat_files.ChatFiles
    decoder: DecoderSource
    if source.is_dir():
        folder = ModelFolder(source)
        decoder, files = HuggingFaceDecoder(folder), chat_files.from_folder(folder)
    elif source.is_file():
        gguf = GgufFile(source)
        decoder, files = GgufDecoder(gguf), chat_files.from_gguf(gguf)
    else:
        raise CorruptModel(source.name, "is missing")
    _write_decoder(source.name, decoder, files, target, precision, report)


def convert_trained(base: Path, decoder: DecoderSource, target: Path, *, precision: Precision) -> None:
    """Write new weights of the model in the directory `base` as the model directory `target`.

    Tokenizer, chat template and the tokens that end an answer are those of `base`; the graph is as `convert_decoder`
    makes it. An existing `target` is replaced. Raises CorruptModel: `base` contradicts itself.
    """
    _write_decoder(base.name, decoder, chat_files.from_model(base), target, precision, _silent)


def _write_decoder(
    name: str,
    decoder: DecoderSource,
    files: chat_files.ChatFiles,
    target: Path,
    precision: Precision,
    report: Progress,
) -> None:
    shape = decoder.shape
    if files.tokenizer.get_vocab_size() > shape.vocab:
        reason = f"has {files.tokenizer.get_vocab_size()} tokens, the embedding only {shape.vocab} rows"
        raise CorruptModel(name, f"its tokenizer {reason}")
    half = precision == "fp16"
    with published(target) as directory:
        with GraphBuilder(directory / MODEL_FILE, directory / DATA_FILE) as builder:
            DecoderGraph(builder, decoder, precision).build(lambda share: report("weights", 0.95 * share))
            builder.save(shape.architecture)
        report("files", 0.95)
        config = DecoderConfig(
            architecture=shape.architecture,
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            hidden=shape.hidden,
            vocab=shape.vocab,
            context_length=shape.context_length,
            precision=precision,
            kv_dtype="float16" if half else "float32",
            kv_bytes_per_token=2 * shape.layers * shape.kv_heads * shape.head_dim * (2 if half else 4),
            eos_token_ids=files.eos_token_ids,
            bos_token_id=files.bos_token_id,
            add_bos=files.add_bos,
            pad_token_id=files.pad_token_id,
            sampling=files.sampling,
        )
        _write_decoder_files(directory, files, config)
    report("done", 1.0)


def import_genai(source: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Write the folder `source`, which onnxruntime-genai's model builder made, as the model directory `target`.

    An existing `target` is replaced. The graph keeps its weights and operators and gets the inputs and outputs that
    `convert_decoder` describes.

    Raises:
        Unsupported: the graph or its configuration has what the slots of our KV cache do not fit; it is named.
        CorruptModel: the files contradict themselves or each other.
    """
    report = progress or _silent
    folder = ModelFolder(source)
    genai = GenaiFolder(folder)
    files = genai.tokenizer_files()
    if files.tokenizer.get_vocab_size() > genai.vocab:
        raise CorruptModel(TOKENIZER_FILE, f"has more tokens than the graph has logits ({genai.vocab})")
    with published(target) as directory:
        genai.write(directory)
        report("files", 0.95)
        _write_decoder_files(directory, files, genai.config(files))
    report("done", 1.0)


def _write_decoder_files(directory: Path, files: chat_files.ChatFiles, config: DecoderConfig) -> None:
    files.tokenizer.save(str(directory / TOKENIZER_FILE))
    if files.template is not None:
        (directory / CHAT_TEMPLATE_FILE).write_text(files.template, encoding="utf-8")
    write_model_config(directory, config)


def convert_encoder(
    source: Path, target: Path, *, precision: Literal["int8", "fp32"] = "int8", progress: Progress | None = None
) -> None:
    """Write the sentence encoder in the Hugging Face folder `source` as the model directory `target`.

    An existing `target` is replaced. precision: "int8" computes the products of the layers in integers, with 8 bit
    weights and 16 bit activations (cosine to fp32 0.9996 in the mean, 0.9993 at the least of 649 texts); the embedding
    tables stay float32.

    Inputs of the graph:
        input_ids int32 [batch, seq]: with the tokens that the tokenizer adds around a text.
        attention_mask int32 [batch, seq]: 1 for a token, 0 for padding on the right.
    Output:
        embedding float32 [batch, embedding_dimension]: pooled, of length 1.

    Raises:
        Unsupported: the architecture, pooling or a feature is not one that this converter knows; it is named.
        CorruptModel: the files contradict themselves or each other.
    """
    report = progress or _silent
    folder = ModelFolder(source)
    encoder = EncoderSource(folder)
    tokenizer = _tokenizer(folder, encoder)
    shape = encoder.shape
    with published(target) as directory:
        with GraphBuilder(directory / MODEL_FILE, directory / DATA_FILE) as builder:
            EncoderGraph(builder, encoder, precision).build(lambda share: report("weights", 0.95 * share))
            builder.save("encoder")
        report("files", 0.95)
        tokenizer.save(str(directory / TOKENIZER_FILE))
        config = EncoderConfig(
            architecture="bert",
            layers=shape.layers,
            hidden=shape.hidden,
            vocab=shape.vocab,
            precision=precision,
            embedding_dimension=shape.hidden,
            max_tokens=shape.max_tokens,
            pooling=shape.pooling,
            pad_token_id=shape.pad_token_id,
        )
        write_model_config(directory, config)
    report("done", 1.0)


def import_encoder(source: Path, exported: Path, target: Path) -> None:
    """Write the graph `exported`, which optimum made of the sentence-transformers folder `source`, as `target`.

    An existing `target` is replaced. Inputs and output are those of `convert_encoder`; weights stay float32.

    Raises:
        Unsupported: pooling or graph is not one that this converter knows; it is named.
        CorruptModel: the files contradict themselves or each other.
    """
    folder = ModelFolder(source)
    config = folder.json("config.json")
    tokenizer = chat_files.folder_tokenizer(folder)
    pad = config.get("pad_token_id")
    pad = pad if isinstance(pad, int) and not isinstance(pad, bool) and pad >= 0 else 0
    # Encoders of the RoBERTa kind count positions from the padding token on.
    positions = positive_integer(config, "max_position_embeddings", "config.json") - pad - 1
    vocab = positive_integer(config, "vocab_size", "config.json")
    if tokenizer.get_vocab_size() > vocab:
        raise CorruptModel(TOKENIZER_FILE, f"has more tokens than the embedding has rows ({vocab})")
    layers = "num_hidden_layers" if "num_hidden_layers" in config else "n_layers"
    pooling = pooling_of(folder)
    with published(target) as directory:
        width = write_pooled(exported, directory, pooling)
        tokenizer.save(str(directory / TOKENIZER_FILE))
        encoder = EncoderConfig(
            architecture=str(config.get("model_type")),
            layers=positive_integer(config, layers, "config.json"),
            hidden=width,
            vocab=vocab,
            precision="fp32",
            embedding_dimension=width,
            max_tokens=longest_text(folder, positions),
            pooling=pooling,
            pad_token_id=pad,
        )
        write_model_config(directory, encoder)


def convert_classifier(
    source: Path, target: Path, *, precision: Literal["int8", "fp32"] = "int8", progress: Progress | None = None
) -> None:
    """Write the BERT classifier in the Hugging Face folder `source` as the model directory `target`.

    An existing `target` is replaced. The graph's inputs and `precision` are those of `convert_encoder`.

    Output:
        probabilities float32 [batch, labels]: softmax over the classifier's logits, of the pooled first token.

    Raises:
        Unsupported: the architecture or a feature is not one that this converter knows, or no label says that a text is
        harmless; it is named. CorruptModel: the files contradict themselves or each other.
    """
    report = progress or _silent
    folder = ModelFolder(source)
    classifier = ClassifierSource(folder)
    tokenizer = _tokenizer(folder, classifier)
    shape = classifier.shape
    with published(target) as directory:
        with GraphBuilder(directory / MODEL_FILE, directory / DATA_FILE) as builder:
            ClassifierGraph(builder, classifier, precision).build(lambda share: report("weights", 0.95 * share))
            builder.save("classifier")
        report("files", 0.95)
        tokenizer.save(str(directory / TOKENIZER_FILE))
        config = ClassifierConfig(
            architecture="bert",
            layers=shape.layers,
            hidden=shape.hidden,
            vocab=shape.vocab,
            precision=precision,
            labels=classifier.labels,
            benign=classifier.benign,
            max_tokens=shape.max_tokens,
            pad_token_id=shape.pad_token_id,
        )
        write_model_config(directory, config)
    report("done", 1.0)


def convert_ngram_classifier(source: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Write the linear classifier in the file `source` as the model directory `target`.

    An existing `target` is replaced. Everything is float32: the graph is a look-up, which blocks would not speed up.

    Inputs of the graph, for the word n-grams and for the pieces of words; `backends/onnx/ngrams.py` makes them:
        word_columns, piece_columns int64 [texts, words], [texts, pieces]: which n-grams occur, padded with 0.
        word_counts, piece_counts float32, the same shapes: how often, 0 for padding.
    Output:
        probabilities float32 [texts, labels]: softmax of the linear scores of the unit TF-IDF vectors, with 1 + ln(n)
        for a count n.

    Raises:
        Unsupported: another format, or a variant of it. CorruptModel: the file contradicts itself.
    """
    report = progress or _silent
    linear = NgramClassifierSource(source)
    with published(target) as directory:
        with GraphBuilder(directory / MODEL_FILE, directory / DATA_FILE) as builder:
            build_ngram_graph(builder, linear)
            builder.save("ngram_classifier")
        report("files", 0.95)
        vocabulary = Vocabulary(linear.words, linear.pieces, linear.shortest, linear.longest)
        (directory / NGRAMS_FILE).write_bytes(msgspec.json.encode(vocabulary))
        config = NgramClassifierConfig(
            architecture="tfidf-logistic",
            precision="fp32",
            labels=linear.labels,
            benign=linear.benign,
            window_words=WINDOW_WORDS,
            window_stride=WINDOW_WORDS // 2,
            window_score=linear.window_score,
        )
        write_model_config(directory, config)
    report("done", 1.0)


def _tokenizer(folder: ModelFolder, encoder: EncoderSource) -> Tokenizer:
    tokenizer = chat_files.folder_tokenizer(folder)
    if tokenizer.get_vocab_size() > encoder.shape.vocab:
        raise CorruptModel(TOKENIZER_FILE, f"has more tokens than the embedding has rows ({encoder.shape.vocab})")
    return tokenizer


def _silent(stage: str, share: float) -> None:
    """Progress that nobody asked for."""
