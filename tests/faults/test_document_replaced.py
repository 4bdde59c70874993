"""Workers are killed while documents are replaced: the old or the new one answers a question, never both or none."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.wire import EMBEDDER, Work, ask, workers_of
from tests.server.processes import until
from tests.servers import RunningServer, running

KILLS = 6
WORDS = 40
"""In a chunk."""
INSERT = "/v1/tool-runtime/rag-tool/insert"
PARTS = ("data", "_transactions", "_versions")
"""Directories of a LanceDB table in the order in which a replacement writes to them, more or less."""
PROFILE = """
providers:
  - {api: inference, provider_id: memory, provider_type: "inline::memory"}
  - {api: vector_io, provider_id: lancedb, provider_type: "inline::lancedb"}
"""


def chunks_of(version: int) -> int:
    """Versions differ in size, so that a mixture has a wrong one."""
    return 20 + version % 3 * 15


def document(version: int) -> dict[str, Any]:
    """A document that names its version in every chunk."""
    content = " ".join(f"version-{version}-word-{i}" for i in range(chunks_of(version) * WORDS))
    return {
        "vector_db_id": "db",
        "chunk_size_in_tokens": WORDS,
        "documents": [{"document_id": "it's", "content": content, "mime_type": "text/plain", "metadata": {}}],
    }


def versions(server: RunningServer) -> tuple[set[int], int, set[tuple[int, int]]]:
    """Versions and number of the chunks that answer, and the places they come from."""
    config = {"max_chunks": 1000, "max_tokens_in_context": 1_000_000, "mode": "vector"}
    config["query_generator_config"] = {"type": "default", "separator": " "}  # type: ignore[assignment]
    body = {"content": "version word", "vector_db_ids": ["db"], "query_config": config}
    answer = ask(server, "POST", "/v1/tool-runtime/rag-tool/query", body)
    assert answer.status == 200, answer.text
    texts = [item["text"] for item in answer.json["content"][1:-1]]
    places = {(each["metadata"]["start"], each["metadata"]["end"]) for each in answer.json["metadata"]["citations"]}
    return {int(found) for text in texts for found in re.findall(r"version-(\d+)-", text)}, len(texts), places


def files_of(data: Path, part: str) -> set[Path]:
    return set(data.glob(f"lance/*.lance/{part}/*"))


@pytest.mark.slow
def test_a_document_is_the_old_or_the_new_one_after_a_kill(tmp_path: Path) -> None:
    profile = tmp_path / "stack.yaml"
    profile.write_text(PROFILE)
    with running(tmp_path, profile=profile) as server:
        assert ask(server, "POST", "/v1/vector-dbs", {"vector_db_id": "db", "embedding_model": EMBEDDER}).status == 200
        whole: dict[int, tuple[int, set[tuple[int, int]]]] = {}
        for version in range(100, 103):
            assert ask(server, "POST", INSERT, document(version)).status == 200
            seen, count, places = versions(server)
            assert seen == {version}
            whole[version % 3] = count, places
        first = 103
        for kill in range(KILLS):
            begun = first
            with Work(server, lambda number, begun=begun: (INSERT, document(begun + number))) as work:  # type: ignore[misc]
                work.until_acknowledged(1)
                part = PARTS[kill % len(PARTS)]
                before = files_of(tmp_path, part)
                until(lambda part=part, before=before: files_of(tmp_path, part) != before, f"a new file in {part}")  # type: ignore[misc]
                for worker in workers_of(server):
                    os.kill(worker, signal.SIGKILL)
            told = begun + max(work.acknowledged)
            seen, count, places = until(lambda: versions(server), "new workers")
            assert len(seen) == 1, f"a mixture of versions {seen}"
            (version,) = seen
            assert told <= version < begun + work.sent, "the last that was acknowledged, or one that was on its way"
            assert (count, places) == whole[version % 3], "all chunks of the version and no others"
            first = begun + work.sent
        assert first < 1000, "versions have three digits, so that places are the same"
