"""Every error a backend or handler raises on purpose. `server/http/errors.py` maps each class to a status.

StackError
├── BadRequest                the input cannot be served as it is; the message says what would be right
│   ├── ContextLengthExceeded prompt plus requested tokens do not fit the model
│   ├── NoProvider            the API that serves this kind has no provider configured
│   ├── UnknownReference      the request names a resource that is not registered
│   └── Unsupported           a feature or model architecture that is refused by name
├── Unauthenticated           no key, or a key that is not ours
├── Forbidden                 a known caller asks for what the settings do not allow
├── NotFound                  the path names nothing that exists
├── Conflict                  the change contradicts what is stored
├── PayloadTooLarge           a body or a batch over its limit
├── UnsupportedMediaType      a body that is not JSON
├── NotBuilt                  an operation of the contract that this release does not implement
├── Retryable                 the same request may succeed later
│   ├── Overloaded            over a concurrency or queue limit
│   ├── SessionBusy           another turn of the session runs
│   └── Unavailable           a part is down, starting or stopping
│       └── CorruptModel      a model's files do not hold what they declare; retrying does not help
├── DeadlineExceeded          the call's deadline passed before the answer was complete
├── StorageFull               the disk or the database has no room, or is read-only
├── Misconfigured             the settings name what does not exist; the server does not start
└── Cancelled                 the caller went away; nobody is left to answer
"""

from __future__ import annotations

from typing import ClassVar


class StackError(Exception):
    """Base of all deliberate errors.

    `where` is the JSON pointer or the parameter name of the offending input, when there is one.
    `internal` is for the log and the operator alone: paths, hosts, what a library said. `str` has it, `message` not.
    `code` is the stable, machine-readable name that clients see.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, where: str | None = None, internal: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.internal = internal

    def __str__(self) -> str:
        return f"{self.message} ({self.internal})" if self.internal else self.message


class BadRequest(StackError):
    """The input cannot be served as it is."""

    code = "bad_request"


class ContextLengthExceeded(BadRequest):
    """Prompt plus requested tokens do not fit the model's context."""

    code = "context_length_exceeded"


class NoProvider(BadRequest):
    """The API that serves this kind of resource has no provider configured."""

    code = "no_provider"

    def __init__(self, api: str) -> None:
        super().__init__(f"no provider configured for {api}")


class UnknownReference(BadRequest):
    """The request names a resource that is not registered."""

    code = "unknown_reference"


class Unsupported(BadRequest):
    """A feature or an architecture that is refused by name."""

    code = "unsupported"


class Unauthenticated(StackError):
    """No key, or a key that is not ours."""

    code = "unauthenticated"


class Forbidden(StackError):
    """A known caller asks for what the settings do not allow; the message names the setting."""

    code = "forbidden"


class NotFound(StackError):
    """The path names nothing that exists."""

    code = "not_found"


class Conflict(StackError):
    """The change contradicts what is stored."""

    code = "conflict"


class PayloadTooLarge(StackError):
    """A body or a batch is over its limit; the message names the limit."""

    code = "payload_too_large"


class UnsupportedMediaType(StackError):
    """A request body of a media type the operation does not take."""

    code = "unsupported_media_type"


class Retryable(StackError):
    """An error that the same request may not meet again. `retry_after_s`: seconds to wait, None: in vain."""

    def __init__(
        self, message: str, *, where: str | None = None, retry_after_s: float | None = 1.0, internal: str = ""
    ) -> None:
        super().__init__(message, where=where, internal=internal)
        self.retry_after_s = retry_after_s


class Overloaded(Retryable):
    """Over a concurrency or queue limit."""

    code = "overloaded"


class SessionBusy(Retryable):
    """Another turn of the same session runs; one at a time does."""

    code = "session_busy"


class NotBuilt(StackError):
    """An operation of the contract that this release does not implement."""

    code = "not_implemented"

    def __init__(self, operation_id: str) -> None:
        super().__init__(f"operation {operation_id} is not implemented by this server")
        self.operation_id = operation_id


class Unavailable(Retryable):
    """A part that the call needs is down, starting or stopping."""

    code = "unavailable"


class CorruptModel(Unavailable):
    """A model's files do not hold what they declare. `file` is the path inside the model directory."""

    code = "corrupt_model"

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"model file {file}: {reason}", retry_after_s=None)
        self.file = file
        self.reason = reason


class DeadlineExceeded(StackError):
    """The call's deadline passed before the answer was complete."""

    code = "deadline_exceeded"


class StorageFull(StackError):
    """The disk or the database has no room, or is read-only."""

    code = "storage_full"


class Misconfigured(StackError):
    """The settings contradict themselves or name what does not exist; raised while starting, `where` is the setting."""

    code = "misconfigured"


class Cancelled(StackError):
    """The caller went away; nobody is left to answer."""

    code = "cancelled"
