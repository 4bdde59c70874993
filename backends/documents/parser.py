"""A program that reads one PDF or HTML file and writes its text: what parses hostile formats, to be limited and killed.

    python -I parser.py pdf|html PAGES CHARACTERS MEMORY_MB SECONDS <document >text

It imports nothing of this project, so that it starts quickly. The exit code says how it went.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NoReturn

DONE, UNREADABLE, TOO_LARGE, ENCRYPTED, TOO_MANY_PAGES = 0, 10, 11, 12, 13
"""Exit codes. Any other one, or a signal, means that a limit of the process was met, or a fault of a library."""
_LEFT_OUT = ("script", "style", "template", "noscript", "svg", "math", "iframe", "object", "head")


def pdf_pages(data: bytes, max_pages: int) -> Iterator[str]:
    """The texts of the pages."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    reader = PdfReader(BytesIO(data))
    try:
        for number, page in enumerate(reader.pages):
            if number >= max_pages:
                sys.exit(TOO_MANY_PAGES)
            yield page.extract_text() + "\n"
    except (FileNotDecryptedError, DependencyError):
        sys.exit(ENCRYPTED)


def html_text(data: bytes, _max_pages: int) -> Iterator[str]:
    """The title, and the text as a reader of the page sees it: tables in columns, no scripts."""
    from inscriptis import Inscriptis
    from lxml import etree, html

    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        tree = html.document_fromstring(data, parser=parser)
    except etree.ParserError:  # nothing but blanks and comments
        return
    title = tree.findtext(".//head/title")
    etree.strip_elements(tree, *_LEFT_OUT, with_tail=False)
    if title and title.strip():
        yield title.strip() + "\n\n"
    yield Inscriptis(tree).get_text()


READERS: dict[str, Callable[[bytes, int], Iterator[str]]] = {"pdf": pdf_pages, "html": html_text}


def main(kind: str, max_pages: int, max_characters: int, memory_mb: int, seconds: int) -> NoReturn:
    """Read standard input, write standard output, exit."""
    limits = ((resource.RLIMIT_AS, memory_mb << 20), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 0))
    for limit, value in (*limits, (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(limit, (value, value))
    texts: list[str] = []
    size = 0
    try:
        for text in READERS[kind](sys.stdin.buffer.read(), max_pages):
            size += len(text)
            if size > max_characters:
                sys.exit(TOO_LARGE)
            texts.append(text)
    except MemoryError:
        sys.exit(TOO_LARGE)
    except Exception as error:
        # The library's own words are for the log alone.
        print(f"{type(error).__name__}: {error}"[:500], file=sys.stderr)
        sys.exit(TOO_LARGE if type(error).__name__ == "LimitReachedError" else UNREADABLE)
    sys.stdout.buffer.write("".join(texts).replace("\0", "").encode("utf-8", "replace"))
    sys.exit(DONE)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
