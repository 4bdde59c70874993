"""docs/configuration.md is what the settings model says."""

from __future__ import annotations

from pathlib import Path

import yaml

from server.settings import Settings
from server.settings_page import INTRODUCTION, page, settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `tox run -e docs`"


def test_every_setting_has_its_heading_a_description_and_a_variable() -> None:
    text = PAGE.read_text("utf-8")
    listed = list(settings())
    assert {setting.path.split(".")[0].split("[")[0] for setting in listed} == set(Settings.model_fields)
    for setting in listed:
        assert f"\n### `{setting.path}`\n" in text
        assert setting.description.endswith("."), setting.path
        assert setting.variable is None or f"`{setting.variable}`" in text


def test_the_example_on_the_page_names_only_settings() -> None:
    example = INTRODUCTION.partition("```yaml\n")[2].partition("```")[0].replace("${env.ALICE_KEY_SHA256}", "ab" * 32)
    assert Settings.model_validate(yaml.safe_load(example)).auth.keys[0].name == "alice"
