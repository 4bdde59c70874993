"""`generated/` is a pure function of the contract, the overlays and this code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codegen import build
from codegen.__main__ import FAILED, FOUND, OK, UNACCEPTED, main
from codegen.build import Generation

from .conftest import ROOT, Plant
from .test_diff import field_added, operation_added, operation_removed, variant_removed


@pytest.fixture(scope="module")
def generation() -> Generation:
    return build.generate(ROOT)


def run(checkout: Path, cwd: Path, seed: str) -> dict[str, bytes]:
    """Generate from scratch in a process of its own."""
    for path in (checkout / "generated").iterdir():
        path.unlink()
    command = [sys.executable, "-m", "codegen", "--root", str(checkout)]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (checkout / "generated").iterdir()}


def test_what_is_committed_is_what_the_contract_gives(generation: Generation) -> None:
    assert list(build.drift(ROOT, generation)) == []
    build.check_lock(ROOT, generation)


def test_the_bytes_depend_on_neither_the_hash_seed_nor_the_working_directory(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = run(checkout, ROOT, "1")
    assert first == run(checkout, elsewhere, "4242")
    assert first == {path.name: path.read_bytes() for path in (ROOT / "generated").glob("*.*") if path.is_file()}


def test_the_manifest_has_the_hashes_of_inputs_and_outputs(generation: Generation) -> None:
    manifest = json.loads(generation.files["MANIFEST.json"])
    assert manifest["inputs"]["openapi.yaml"] == hashlib.sha256((ROOT / "openapi.yaml").read_bytes()).hexdigest()
    assert set(manifest["outputs"]) == set(generation.files) - {"MANIFEST.json"}
    for name, digest in manifest["outputs"].items():
        assert hashlib.sha256(generation.files[name].encode()).hexdigest() == digest
    assert manifest["tools"]["datamodel-code-generator"] == "0.89.0"


def test_generated_code_imports_without_a_warning() -> None:
    command = [sys.executable, "-W", "error", "-c", "import generated.api, generated.operations"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_check_passes_on_what_is_current_and_shows_the_diff_of_what_is_not(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(checkout), "--check"]) == OK
    table = checkout / "generated" / "operations.py"
    table.write_text(table.read_text().replace("'/v1/version'", "'/v2/version'"))
    (checkout / "generated" / "left_over.py").write_text("")
    assert main(["--root", str(checkout), "--check"]) == FOUND
    said = capsys.readouterr().out
    assert "-        path='/v2/version'," in said
    assert "+        path='/v1/version'," in said
    assert "generated/left_over.py: nothing generates this file" in said
    assert "/v2/version" in table.read_text(), "--check writes nothing"


def test_a_changed_contract_waits_to_be_accepted(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    checkout = plant(variant_removed)
    before = (checkout / "generated" / "models.py").read_bytes()
    assert main(["--root", str(checkout)]) == UNACCEPTED
    said = capsys.readouterr().err
    assert "BREAKING  #/components/schemas/ResponseFormat/oneOf/1: GrammarResponseFormat was removed" in said
    assert "chat_completion" in said
    assert "--accept" in said
    assert (checkout / "generated" / "models.py").read_bytes() == before, "nothing is written before that"
    generation = build.generate(checkout)
    assert "models.py" in build.write(checkout, generation, accept=True)
    build.check_lock(checkout, generation)
    assert build.write(checkout, generation, accept=False) == []


def test_a_count_that_moves_is_said(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    def change(contract: dict[str, Any]) -> None:
        field_added(contract)
        six = [{"type": t} for t in ("null", "boolean", "number", "string", "array", "object")]
        contract["components"]["schemas"]["ChatCompletionRequest"]["properties"]["extra"] = {"oneOf": six}

    assert main(["--root", str(plant(change))]) == UNACCEPTED
    assert "any JSON oneOf -> {}: 46 -> 47" in capsys.readouterr().err


def test_an_operation_that_is_gone_names_the_overlay_actions_about_it(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(plant(operation_removed))]) == FAILED
    target = "target $.paths['/v1/models/{model_id}'].delete: matches nothing"
    assert f"overlay.yaml, action {_number()}: {target}" in capsys.readouterr().err


def _number() -> int:
    """Place of the action that names the operation, counted as a reader of the file would."""
    lines = (ROOT / "codegen" / "overlay.yaml").read_text().splitlines()
    targets = [line for line in lines if line.startswith("- target:")]
    return targets.index("- target: $.paths['/v1/models/{model_id}'].delete") + 1


def test_an_operation_that_is_new_asks_for_a_name(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(plant(operation_added))]) == FAILED
    assert "update: {operationId: list_prompts}" in capsys.readouterr().err


def test_report_and_stubs_work_without_generating(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "handlers").mkdir()
    assert main(["--root", str(checkout), "report", "--json"]) == FOUND
    assert len(json.loads(capsys.readouterr().out)) == 74
    assert main(["--root", str(checkout), "stubs"]) == OK
    assert "stub: handlers.inference.chat_completion" in capsys.readouterr().out
    assert main(["--root", str(checkout), "report"]) == OK
    assert "every handler fits its operation" in capsys.readouterr().out
    assert main(["--root", str(checkout), "stubs"]) == OK
    assert "every operation has a handler" in capsys.readouterr().out


def test_diff_exits_with_one_on_a_breaking_change_only(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    original = str(ROOT / "openapi.yaml")
    harmless = str(plant(field_added) / "openapi.yaml")
    assert main(["diff", original, original]) == OK
    assert main(["diff", original, harmless]) == OK
    assert "0 breaking, 1 other changes" in capsys.readouterr().out
    assert main(["diff", harmless, original, "--json"]) == FOUND
    (change,) = json.loads(capsys.readouterr().out)
    assert change["breaking"] is True
    assert change["place"] == "#/components/schemas/ChatCompletionRequest/properties/seed"


def test_the_handlers_of_this_checkout_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == OK, capsys.readouterr().out
