"""What has a name has a place in the pages: verbs, settings, error codes, files, providers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
import yaml

from backends import errors
from backends.models.catalog import CATALOG
from backends.providers import FACTORIES, OPTIONS
from generated.operations import OPERATIONS
from handlers.inspect import is_built
from server.cli import app
from server.http import errors as http_errors
from server.settings_page import settings
from tests.docs.pages import PAGES, ROOT, anchors, blocks, links, prose, table_rows

ERRORS = ROOT / "docs" / "errors.md"
REMOTE = ROOT / "docs" / "remote.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"


def error_classes(base: type[errors.StackError] = errors.StackError) -> Iterator[type[errors.StackError]]:
    yield base
    for derived in base.__subclasses__():
        if derived.__module__ == errors.__name__:
            yield from error_classes(derived)


def example(cls: type[errors.StackError]) -> errors.StackError:
    return cls("model.onnx", "too short") if cls is errors.CorruptModel else cls("x")


def verbs() -> list[str]:
    """`models pull` and so on."""
    found = []

    def walk(command: click.Command, path: str) -> None:
        inner = getattr(command, "commands", None)
        for name, child in (inner or {}).items():
            walk(child, f"{path} {name}".strip())
        if inner is None:
            found.append(path)

    walk(typer.main.get_command(app), "")
    return found


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_a_row_in_the_page_of_the_command_line(verb: str) -> None:
    shown = [cells[0] for cells in table_rows(ROOT / "docs" / "cli.md", "| command | what it does |")]
    assert any(re.match(rf"`onnxstack {verb}\b", cell) for cell in shown)


def test_the_page_of_the_command_line_names_no_verb_that_is_not_there() -> None:
    shown = [cells[0] for cells in table_rows(ROOT / "docs" / "cli.md", "| command | what it does |")]
    assert len(shown) == len(verbs())


def test_every_setting_has_a_heading() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert [setting.path for setting in settings() if f"\n### `{setting.path}`\n" not in text] == []


def test_the_table_of_errors_is_what_the_server_answers() -> None:
    rows = table_rows(ERRORS, "| class | status | `code` | retry headers | when |")
    shown = {cells[0].strip("`"): tuple(cells[1:4]) for cells in rows}
    expected = {}
    for cls in error_classes():
        problem = http_errors.problem_of(example(cls))
        headers = ", ".join(
            f"`{name}: {value}`" for name, value in problem.headers.items() if name in ("retry-after", "x-should-retry")
        )
        if cls is not errors.Retryable:  # never raised itself
            expected[cls.__name__] = (str(problem.status), f"`{problem.code}`", headers)
    assert shown == expected


def test_every_code_has_its_place() -> None:
    codes = {cls.code for cls in error_classes()} | set(http_errors._CODES.values())
    text = prose(ERRORS)
    assert [code for code in sorted(codes) if f"`{code}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        found = [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if "://" not in target]
        waiting += [file for file in found if file.suffix == ".md" and file not in reached]
    assert [page for page in PAGES if page not in reached] == []


def test_every_file_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`([\w./]+(?:/|\.(?:py|json|yaml|md|toml)))`", prose(ARCHITECTURE))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_folder_of_the_layers_has_its_row() -> None:
    folders = {
        f"{layer}/{folder.name}/"
        for layer in ("backends", "server")
        for folder in (ROOT / layer).iterdir()
        if (folder / "__init__.py").exists()
    }
    rows = table_rows(ARCHITECTURE, "| folder | what lives there | what does not |")
    assert folders <= {name for cells in rows for name in re.findall(r"`([^`]+)`", cells[0])}


def test_the_architecture_fits_a_screen() -> None:
    assert len(ARCHITECTURE.read_text("utf-8").splitlines()) <= 80


def test_the_architecture_names_the_modules_that_are_not_built() -> None:
    found = re.search(r"all operations of the modules ([\w,\s]+):", prose(ARCHITECTURE))
    named = set() if found is None else set(re.findall(r"\w+", found[1])) - {"and"}
    built = {operation.module for operation in OPERATIONS.values() if is_built(operation)}
    assert named == {operation.module for operation in OPERATIONS.values()} - built
    single = [o.operation_id for o in OPERATIONS.values() if o.module in built and not is_built(o)]
    assert [name for name in single if f"`{name}`" not in prose(ARCHITECTURE)] == []


def test_the_table_of_providers_is_what_can_be_configured() -> None:
    rows = table_rows(ARCHITECTURE, "| `provider_type` | API | default `provider_id` | ports, and where |")
    shown = {
        (api, kind)
        for cells in rows
        for kind in re.findall(r"`([^`]+)`", cells[0])
        for api in re.findall(r"\w+", cells[1])
    }
    assert shown == set(FACTORIES)


def test_the_catalogue_on_the_page_is_the_catalogue() -> None:
    rows = table_rows(ROOT / "docs" / "models.md", "| model | kind | wheel | licence | stored |")
    shown = {cells[0].strip("`"): cells for cells in rows}
    assert set(shown) == set(CATALOG)
    for name, model in CATALOG.items():
        _, kind, wheel, licence, _ = shown[name]
        assert kind.split(",")[0] == model.kind
        assert wheel.startswith(f"`{model.package}` {model.version}")
        assert f"{model.size / 1e6:.0f} MB" in wheel
        assert licence == model.licence


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    assert {file.name for file in folder.glob("*.md")} == {*links(folder / "README.md"), "README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_extras_groups_and_tox_environments_exist(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = page.read_text("utf-8")
    assert set(re.findall(r"\.\[(\w+)\]", text)) <= set(project["project"]["optional-dependencies"])
    assert set(re.findall(r"--group (\w+)", text)) <= set(project["dependency-groups"])
    environments = set(re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"tox run -e (\w+)", text)) <= environments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text("utf-8"), re.MULTILINE)) <= targets


def test_settings_that_pages_name_exist() -> None:
    known = {setting.path for setting in settings()}
    sections = {path.partition(".")[0].removesuffix("[]") for path in known if "." in path}
    for page in PAGES:
        for name in re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)[`:]", prose(page)):
            assert name in known, f"{page.name}: {name}"


def test_the_options_of_an_upstream_are_those_that_it_takes() -> None:
    rows = table_rows(REMOTE, "| option | default | |")
    shown = {cells[0].strip("`"): cells[1].strip("`") for cells in rows}
    fields = OPTIONS["inference", "remote::openai"].model_fields
    assert list(shown) == list(fields)
    told = {
        name: default for name, default in shown.items() if default not in {"required", "none", "learnt", "as told"}
    }
    assert told == {
        name: f"{default:g}" if isinstance(default, float) else str(default).lower()
        for name, field in fields.items()
        if name in told
        for default in [field.default]
    }


def test_the_options_of_the_code_interpreter_are_those_that_it_takes() -> None:
    rows = table_rows(ROOT / "docs" / "code-interpreter.md", "| option | default | |")
    fields = OPTIONS["tool_runtime", "inline::code-interpreter"].model_fields
    assert [cells[0].strip("`") for cells in rows] == list(fields)
    for cells in rows:
        default = fields[cells[0].strip("`")].default
        if isinstance(default, int | float):
            assert cells[1] == f"{default:g}"


def test_the_providers_of_the_examples_take_their_options() -> None:
    found = 0
    for page in PAGES:
        for block in (block for block in blocks(page) if block.language == "yaml"):
            for entry in yaml.safe_load(block.text).get("providers", ()):
                options = OPTIONS.get((entry["api"], entry["provider_type"]))
                if options is not None:
                    options.model_validate({n: v for n, v in entry.get("config", {}).items() if "${env." not in str(v)})
                    found += 1
    assert found
