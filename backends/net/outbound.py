"""Fetching what a client names: public http and https, data: URLs, and files below directories that are allowed."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from backends.config import OutboundSettings
from backends.context import CallContext
from backends.errors import BadRequest, Forbidden, PayloadTooLarge, Unavailable
from backends.net.addresses import Allowed, check_host, is_address, permitted, refused
from backends.net.refusal import PORTS, RefusedHost

if TYPE_CHECKING:
    import httpx2

    from backends.net.transport import Budget

MAX_URL = 8192
MAX_REDIRECTS = 5
_SCHEMES = ("http", "https", "data", "file")
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL holds. mime_type: as its source says, "" if it says nothing. url: where it came from in the end."""

    data: bytes
    mime_type: str
    url: str


class Outbound:
    """Opens URLs for clients. Many threads may use one."""

    def __init__(self, settings: OutboundSettings) -> None:
        self._settings = settings
        self._allowed = Allowed(settings.allow)
        self._roots = [root.expanduser().resolve() for root in settings.roots]

    def check(self, url: str, *, where: str) -> None:
        """Return if the URL may be opened, as far as that can be told without opening it.

        Raises:
            BadRequest: no URL of a scheme that is taken. Forbidden: it leads where clients may not go.
        """
        scheme = self._scheme(url, where)
        if scheme == "file":
            self._file(url, where)
        elif scheme != "data":
            host, port = self._place(url, where)
            # Names are looked up when something connects: what they lead to now says little about then.
            if is_address(host) or host == "localhost" or host.endswith(".localhost"):
                permitted(host, port, self._allowed, where=where)

    def fetch(self, context: CallContext, url: str, *, where: str, max_bytes: int | None = None) -> Fetched:
        """What the URL holds, read within the limits of size and time.

        Raises:
            BadRequest: no URL, or nothing to be had there. Forbidden: it leads where clients may not go.
            PayloadTooLarge: more than `max_bytes`, or than the settings allow. Unavailable: no answer in time.
        """
        limit = min(max_bytes or self.max_bytes, self.max_bytes)
        scheme = self._scheme(url, where)
        if scheme == "data":
            return _data(url, limit, where)
        if scheme == "file":
            return _read(self._file(url, where), limit, where)
        self._place(url, where)
        return self._get(context, url, limit, where)

    @property
    def max_bytes(self) -> int:
        """Bytes that one URL may hold."""
        return self._settings.max_mb * 1_000_000

    def async_client(
        self,
        budget: Budget,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        """A client for libraries that speak HTTP themselves; it connects only where clients may go.

        budget: what all answers together may hold.
        """
        import httpx2

        from backends.net.transport import AsyncGuardedTransport

        return httpx2.AsyncClient(
            transport=AsyncGuardedTransport(self._allowed, budget),
            headers=headers,
            timeout=timeout or httpx2.Timeout(self._settings.timeout_s),
            auth=auth,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            trust_env=False,
        )

    def _get(self, context: CallContext, url: str, limit: int, where: str) -> Fetched:
        # Only here: importing them costs a start that opens nothing.
        import httpx2

        from backends.net.transport import GuardedTransport

        deadline = time.monotonic() + self._settings.timeout_s
        try:
            with (
                httpx2.Client(
                    transport=GuardedTransport(self._allowed),
                    follow_redirects=True,
                    max_redirects=MAX_REDIRECTS,
                    timeout=self._settings.timeout_s,
                    trust_env=False,
                    # What is compressed could unfold to any size before it is counted.
                    headers={"accept-encoding": "identity", "user-agent": "onnxstack"},
                ) as client,
                client.stream("GET", url) as answer,
            ):
                if answer.status_code >= 400:
                    raise BadRequest(f"the URL answers with the status {answer.status_code}", where=where)
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise BadRequest("the URL answers with compressed data, which was not asked for", where=where)
                data = bytearray()
                for chunk in answer.iter_raw(_CHUNK):
                    context.check()
                    data += chunk
                    if len(data) > limit:
                        raise PayloadTooLarge(f"the URL holds more than {limit} bytes", where=where)
                    if time.monotonic() > deadline:
                        raise Unavailable("the URL takes too long to answer", where=where)
                return Fetched(bytes(data), answer.headers.get("content-type", ""), str(answer.url))
        except RefusedHost as error:
            raise _placed(error, where) from None
        except httpx2.TimeoutException:
            raise Unavailable("the URL takes too long to answer", where=where) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise BadRequest("the URL cannot be fetched", where=where, internal=str(error)) from None

    def _scheme(self, url: str, where: str) -> str:
        scheme = url.partition(":")[0].casefold()
        if scheme not in _SCHEMES:
            raise BadRequest(f"a URL begins with one of {', '.join(f'{each}:' for each in _SCHEMES)}", where=where)
        if scheme != "data" and len(url) > MAX_URL:
            raise BadRequest(f"a URL has at most {MAX_URL} characters", where=where)
        return scheme

    def _place(self, url: str, where: str) -> tuple[str, int]:
        """Host and port of an http URL that may be opened as far as its text tells."""
        if any(character in url for character in "\\\r\n\t \0") or not url.isascii():
            raise BadRequest("the URL holds characters that must be escaped", where=where)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise BadRequest("the URL cannot be read", where=where) from None
        if parts.username is not None or parts.password is not None:
            raise BadRequest("the URL must not hold a user or a password", where=where)
        host = check_host(host, where=where)
        if port not in PORTS and (host, port) not in self._allowed:
            raise refused(where)
        return host, port

    def _file(self, url: str, where: str) -> Path:
        """The file of a `file://` URL. Raises Forbidden: it is in none of the directories; BadRequest."""
        parts = urlsplit(url)
        name = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or "\0" in name or not name.startswith("/") or name.startswith("//"):
            raise BadRequest("a file is named as file:///absolute/path", where=where)
        try:
            path = Path(name).resolve()
        except (OSError, RuntimeError, ValueError):
            raise BadRequest("the path of the URL cannot be read", where=where) from None
        if not any(path.is_relative_to(root) for root in self._roots):
            raise Forbidden(
                "this file is below none of the directories that clients may name; the operator can allow one in "
                "`outbound.roots`",
                where=where,
            )
        return path


def _placed(error: RefusedHost, where: str) -> Exception:
    inner = error.error
    if isinstance(inner, Forbidden | BadRequest):
        inner.where = where
    return inner


def _data(url: str, limit: int, where: str) -> Fetched:
    """RFC 2397."""
    head, comma, body = url[len("data:") :].partition(",")
    if not comma:
        raise BadRequest("a data: URL is data:<type>[;base64],<data>", where=where)
    mime_type, _, encoding = head.rpartition(";")
    is_base64 = encoding.strip().casefold() == "base64"
    if not is_base64:
        mime_type = head
    if len(body) > 4 * limit:
        raise PayloadTooLarge(f"the URL holds more than {limit} bytes", where=where)
    try:
        data = base64.b64decode(unquote(body), validate=True) if is_base64 else unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise BadRequest("the data of the URL is no base64", where=where) from None
    if len(data) > limit:
        raise PayloadTooLarge(f"the URL holds more than {limit} bytes", where=where)
    return Fetched(data, mime_type, f"data:{mime_type}")


def _read(path: Path, limit: int, where: str) -> Fetched:
    try:
        # The path is resolved: a link put in its place since then is not followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadRequest("the URL names no regular file", where=where)
            data = file.read(limit + 1)
    except OSError as error:
        raise BadRequest("the file cannot be read", where=where, internal=str(error)) from None
    if len(data) > limit:
        raise PayloadTooLarge(f"the file holds more than {limit} bytes", where=where)
    return Fetched(data, mimetypes.guess_type(path.name)[0] or "", path.as_uri())
