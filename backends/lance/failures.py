"""What LanceDB says when it fails, as errors of this project.

LanceDB raises ValueError, RuntimeError and OSError with a text; the operating system's error number is in the text.
Numbers: errno(3).
"""

from __future__ import annotations

import errno
import re

from backends.errors import StackError, StorageFull, Unavailable

RAW_ERRORS = (RuntimeError, ValueError, OSError)
RETRY_AFTER_S = 1.0
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_OS_ERROR = re.compile(r"os error (\d+)")
_CONFLICT = re.compile(r"conflict|too many concurrent writers|already exists", re.IGNORECASE)
_SOURCE = re.compile(r",? *(/root/\.cargo|/rustc|/home/[^ ]*\.cargo|rust/)\S*|LanceError\(\w+\): |lance error: ")


def is_conflict(error: BaseException) -> bool:
    """Another writer committed first: the same write may succeed on the table as it is now."""
    return _os_error(error) is None and _CONFLICT.search(str(error)) is not None


def is_missing(error: BaseException) -> bool:
    """There is no table of that name."""
    return isinstance(error, ValueError) and "was not found" in str(error)


def is_vanished(error: BaseException) -> bool:
    """Files of the table went away or appeared during the operation, as when the table is being dropped."""
    return "Not found: " in str(error) or _os_error(error) in {errno.ENOENT, errno.ENOTEMPTY}


def translated(error: BaseException, table: str) -> StackError:
    """The error for the caller, who learns the table; what LanceDB said is internal."""
    reason = _SOURCE.sub("", str(error)).strip(" ,:") or type(error).__name__
    if _os_error(error) in _NO_ROOM:
        return StorageFull(f"no room to write vector table {table!r}, or it is read-only", internal=reason)
    if is_conflict(error):
        return Unavailable(
            f"vector table {table!r} has too many writers; try again", retry_after_s=RETRY_AFTER_S, internal=reason
        )
    return Unavailable(
        f"vector table {table!r} cannot be read or written, its files may be damaged",
        retry_after_s=None,
        internal=reason,
    )


def _os_error(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None
