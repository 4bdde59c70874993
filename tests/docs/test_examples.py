"""What the pages show can be pasted: shell and Python run against a real server, YAML is read as settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from server.settings import load_settings
from server.settings_file import REFERENCE
from tests.docs.pages import OUTPUT, PAGES, ROOT, Block, blocks
from tests.docs.reader import Reader
from tests.sandboxes import needs_bubblewrap

ALL = [block for page in PAGES for block in blocks(page)]
RUN = ("sh", "python")
curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@curl
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[needs_bubblewrap] if page.name == "code-interpreter.md" else [])
        for page in PAGES
        if any(b.language in RUN and not b.not_run for b in blocks(page))
    ],
    ids=named,
)
def test_shell_and_python_of_a_page_run_in_their_order(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        if block.language in RUN and not block.not_run:
            done = reader.run(block.language, block.text)
            assert done.returncode == 0, f"{block.place}\n{done.stdout}{done.stderr}"
            assert '"status":4' not in done.stdout and '"status":5' not in done.stdout, f"{block.place}\n{done.stdout}"


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.language == "yaml" and not b.not_run], ids=lambda block: block.place
)
def test_yaml_is_what_the_settings_take(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(block.text)
    needed = {found[1]: "ab" * 32 for found in REFERENCE.finditer(block.text) if found[2] is None}
    load_settings(file, environ=needed).check_exposure()


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "json"], ids=lambda block: block.place)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.place)
def test_every_block_runs_or_says_why_not(block: Block) -> None:
    assert block.language in (*RUN, "yaml", *OUTPUT), f"{block.place}: a block names its language"
    if block.language in OUTPUT:
        assert not block.not_run, f"{block.place}: output is not run anyway"


@curl
def test_a_stream_has_the_events_that_the_page_shows(reader: Reader) -> None:
    page = ROOT / "docs" / "inference.md"
    found = list(blocks(page))
    position = next(i for i, block in enumerate(found) if '"stream": true' in block.text)
    shown, got = found[position + 1].text, reader.run("sh", found[position].text).stdout
    assert shapes(shown) == shapes(got)
    assert len(shapes(shown)) == 3


def shapes(stream: str) -> list[object]:
    """The events without what belongs to the model or to the machine: texts, numbers, how many tokens came at once."""
    found = []
    for line in filter(None, stream.splitlines()):
        event = json.loads(line.removeprefix("data: "))["event"]
        event["delta"]["text"] = bool(event["delta"]["text"])
        if "logprobs" in event:
            event["logprobs"] = {len(token["logprobs_by_token"]) for token in event["logprobs"]} == {2}
        if not found or found[-1] != event:
            found.append(event)
    return found
