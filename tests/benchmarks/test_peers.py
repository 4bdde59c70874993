"""Copies of weights for the peers."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from benchmarks.peers import q8_0_copy


def test_a_copy_with_renamed_tokens_differs_in_these_names_alone(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|im_start|>", "a", "<|im_end|>"])
    writer.add_chat_template("{{ '<|im_start|>' + message + '<|im_end|>' }}")
    weights = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("token_embd.weight", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    renamed = {"<|im_start|>": "<|start_header_id|>", "<|im_end|>": "<|eot_id|>"}
    plain = gguf.GGUFReader(q8_0_copy(source, tmp_path / "plain.gguf"))
    copy = gguf.GGUFReader(q8_0_copy(source, tmp_path / "copy.gguf", renamed))

    assert plain.fields["tokenizer.ggml.tokens"].contents() == ["<|im_start|>", "a", "<|im_end|>"]
    assert copy.fields["tokenizer.ggml.tokens"].contents() == ["<|start_header_id|>", "a", "<|eot_id|>"]
    template = copy.fields["tokenizer.chat_template"].contents()
    assert template == "{{ '<|start_header_id|>' + message + '<|eot_id|>' }}"
    assert [t.tensor_type for t in copy.tensors] == [gguf.GGMLQuantizationType.Q8_0]
    assert np.array_equal(copy.tensors[0].data, plain.tensors[0].data)
