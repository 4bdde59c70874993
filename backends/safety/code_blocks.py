"""Finds Python in the text of a message, so that it can be looked at; nothing here runs or parses it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

FENCES = ("```", "~~~")
PYTHON = {"", "py", "python", "python3", "ipython", "pycon"}
"""Languages that a fence may name; one that names none may well hold Python."""


def python_blocks(text: str) -> Iterator[str]:
    """The blocks between fences that may hold Python, without common indentation; one that is never closed runs to the
    end. Text without any fence is one block where it looks like code.
    """
    block: list[str] | None = None
    fence, wanted, fenced = "", False, False
    for line in text.splitlines():
        bare = line.strip()
        if block is None:
            if bare.startswith(FENCES):
                fence, fenced, block = bare[:3], True, []
                language = bare.lstrip(fence[0]).split()
                wanted = (language[0].lower() if language else "") in PYTHON
        elif bare.startswith(fence) and not bare.strip(fence[0]):
            if wanted and block:
                yield _dedented(block)
            block = None
        else:
            block.append(line)
    if block and wanted:
        yield _dedented(block)
    if not fenced and _looks_like_code(text):
        yield _dedented(text.splitlines())


def _looks_like_code(text: str) -> bool:
    """Whether there is an import or a call: what a scanner could object to has one of them.

    >>> _looks_like_code("eval(x)"), _looks_like_code("It was (so they say) fine.")
    (True, False)
    """
    if "import " in text:
        return True
    start = text.find("(")
    while start != -1:
        if start and (text[start - 1].isalnum() or text[start - 1] in "_])"):
            return True
        start = text.find("(", start + 1)
    return False


def _dedented(lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines)) + "\n"
