"""Make `tokens.json`: what llama.cpp makes of awkward texts, for every splitting rule that our GGUF tokenizer knows.

Run by hand, in an environment of its own with `pip install xllamacpp gguf` (last with xllamacpp 2026.10.11549):

    python make_tokens.py SmolLM2-135M-Instruct.Q4_1.gguf tokens.json

The texts are those of the file that is there; add one as `{"text": "..."}` to the rule "smollm". For each rule the
model file is copied with another `tokenizer.ggml.pre`, its own vocabulary and merges staying, and llama.cpp's server is
asked for the tokens of each text without (`plain`) and with (`special`) recognising special tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unicodedata
import urllib.request
from pathlib import Path

RULES = ("smollm", "llama-bpe", "qwen2", "gpt-2", "default", "dbrx", "gpt-4o", "tekken")


def main() -> None:
    import xllamacpp

    model, out = sys.argv[1], Path(sys.argv[2])
    texts = [row["text"] for row in json.loads(out.read_text())["smollm"]]
    golden: dict[str, list[dict[str, object]]] = {}
    for rule in RULES:
        with tempfile.TemporaryDirectory() as directory:
            changed = f"{directory}/model.gguf"
            subprocess.run(["gguf-new-metadata", "--pre-tokenizer", rule, model, changed], check=True)
            parameters = xllamacpp.CommonParams()
            parameters.model.path = changed
            parameters.n_ctx = 256
            server = xllamacpp.Server(parameters)
            golden[rule] = []
            for text in texts:
                if rule == "qwen2" and unicodedata.normalize("NFC", text) != text:
                    continue  # the model's own tokenizer composes characters first, llama.cpp does not
                row: dict[str, object] = {"text": text}
                for kind in ("plain", "special"):
                    body = {"content": text, "add_special": False, "parse_special": kind == "special"}
                    request = urllib.request.Request(
                        f"{server.listening_address}/tokenize",
                        json.dumps(body).encode(),
                        {"Content-Type": "application/json"},
                    )
                    with urllib.request.urlopen(request) as answer:
                        row[kind] = json.load(answer)["tokens"]
                golden[rule].append(row)
            del server
    lines = ",\n".join(
        f"{json.dumps(rule)}: [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for rule, rows in golden.items()
    )
    out.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
