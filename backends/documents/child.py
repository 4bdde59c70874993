"""The child process that parses one document: `python -m backends.documents.child MIME CHARSET`, bytes in, text out.

Its memory, time and files are limited before it reads anything.
"""

from __future__ import annotations

import resource
import sys

MEMORY = 1_500_000_000
UNREADABLE = 3
"""Exit code of a document that is not what it says; the reason is what was printed."""


def main() -> None:
    mime_type, charset, seconds = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from backends.documents.formats import HOSTILE, MAX_TEXT, Unreadable

    try:
        text = HOSTILE[mime_type](sys.stdin.buffer.read(), charset or None)
        if len(text) > MAX_TEXT:
            raise Unreadable(f"the document holds more than {MAX_TEXT} characters")
    except Unreadable as error:
        sys.stdout.buffer.write(str(error).encode())
        sys.stdout.flush()
        sys.exit(UNREADABLE)
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
