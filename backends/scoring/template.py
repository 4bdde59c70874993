"""Judge prompts: a user's template with the columns of a row in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_HOLE = re.compile(r"\{\{|\}\}|\{(input_query|expected_answer|generated_answer|context)\}")


def columns_of(template: str) -> list[str]:
    """The columns that the template asks for, each once, in order."""
    return list(dict.fromkeys(found[1] for found in _HOLE.finditer(template) if found[1]))


def render(template: str, row: Mapping[str, str]) -> str:
    """The template with `{column}` replaced by that column's text, once: braces in a row's text stay what they are.

    `{{` and `}}` are single braces, as for `str.format`; any other brace is itself, and nothing is looked up by it.
    """
    return _HOLE.sub(lambda found: row[found[1]] if found[1] else found[0][0], template)
