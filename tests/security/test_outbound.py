"""Faults 17 and 18: no URL and no path that a client names leads inside."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.config import OutboundSettings
from backends.context import CallContext
from backends.errors import BadRequest, Forbidden, PayloadTooLarge, StackError
from backends.net import Outbound

CONTEXT = CallContext(request_id="test")

INSIDE = [
    "http://127.0.0.1/",
    "http://127.0.0.1:22/",
    "http://localhost/",
    "http://localhost./",
    "http://0.0.0.0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://93.184.215.14:22/",
    "http://93.184.215.14:8080/",
]
MALFORMED = [
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://good\\@127.0.0.1/",
    "http://good.example\\@127.0.0.1/",
    "http://user@127.0.0.1/",
    "http://user:password@good.example/",
    "http://127.0.0.1\r\nHost: x/",
    "http:///etc/passwd",
    "http://\u2460\u2461\u2466.0.0.1/",
    "gopher://127.0.0.1:6379/_INFO",
    "ftp://127.0.0.1/",
    "jar:http://127.0.0.1!/",
    "//127.0.0.1/",
    "",
    "http://[::1",
    "http://127.0.0.1:99999/",
]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Where anything connected to."""
    made: list[object] = []
    connect = socket.socket.connect

    def spy(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            made.append(address)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", spy)
    return made


@pytest.mark.parametrize("url", INSIDE)
def test_a_url_that_leads_inside_is_refused_before_anything_connects(url: str, connections: list[object]) -> None:
    outbound = Outbound(OutboundSettings())
    for attempt in (lambda: outbound.check(url, where="/url"), lambda: outbound.fetch(CONTEXT, url, where="/url")):
        with pytest.raises(Forbidden, match=r"outbound\.allow") as refused:
            attempt()
        assert refused.value.where == "/url"
        assert "127.0.0.1" not in refused.value.message
    assert connections == []


@pytest.mark.parametrize("url", MALFORMED)
def test_a_url_in_a_spelling_of_its_own_is_a_bad_request(url: str, connections: list[object]) -> None:
    outbound = Outbound(OutboundSettings(allow=("127.0.0.1:*",)))
    for attempt in (lambda: outbound.check(url, where="/url"), lambda: outbound.fetch(CONTEXT, url, where="/url")):
        with pytest.raises(BadRequest):
            attempt()
    assert connections == []


def test_a_name_that_leads_inside_is_refused_and_one_that_changes_is_not_asked_twice(
    monkeypatch: pytest.MonkeyPatch, connections: list[object]
) -> None:
    asked: list[str] = []
    public_first = iter(["93.184.215.14", "127.0.0.1"])

    def rebinding(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        address = host if host[0].isdigit() else next(public_first) if host == "rebind.example" else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    outbound = Outbound(OutboundSettings(timeout_s=0.2))
    with pytest.raises(Forbidden):
        outbound.fetch(CONTEXT, "http://inside.example/", where="/url")
    assert connections == []
    with pytest.raises(StackError):
        outbound.fetch(CONTEXT, "http://rebind.example/", where="/url")
    assert all(address != ("127.0.0.1", 80) for address in connections)
    assert asked.count("rebind.example") == 1


def test_one_address_inside_among_others_outside_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(Forbidden):
        Outbound(OutboundSettings()).fetch(CONTEXT, "http://both.example/", where="/url")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers: dict[str, Callable[[], None]] = {
            "/text": lambda: self._answer(200, b"hello", "text/plain"),
            "/away": lambda: self._answer(302, b"", "text/plain", location="http://169.254.169.254/secret"),
            "/odd": lambda: self._answer(302, b"", "text/plain", location="gopher://127.0.0.1/"),
            "/loop": lambda: self._answer(302, b"", "text/plain", location="/loop"),
            "/endless": self._endless,
            "/gone": lambda: self._answer(404, b"nothing", "text/plain"),
        }
        answers[self.path]()

    def _answer(self, status: int, body: bytes, kind: str, location: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def site() -> Iterator[tuple[str, str]]:
    """A site on loopback: its URL, and how `outbound.allow` names it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_the_operator_allows_is_fetched_and_nothing_beside_it(site: tuple[str, str]) -> None:
    url, place = site
    outbound = Outbound(OutboundSettings(allow=(place,)))
    fetched = outbound.fetch(CONTEXT, f"{url}/text", where="/url")
    assert (fetched.data, fetched.mime_type) == (b"hello", "text/plain")
    with pytest.raises(Forbidden):
        Outbound(OutboundSettings()).fetch(CONTEXT, f"{url}/text", where="/url")
    with pytest.raises(Forbidden):
        outbound.fetch(CONTEXT, "http://127.0.0.1:1/", where="/url")
    with pytest.raises(BadRequest, match="404"):
        outbound.fetch(CONTEXT, f"{url}/gone", where="/url")


def test_redirects_are_looked_at_again(site: tuple[str, str], connections: list[object]) -> None:
    url, place = site
    outbound = Outbound(OutboundSettings(allow=(place,)))
    with pytest.raises(Forbidden) as refused:
        outbound.fetch(CONTEXT, f"{url}/away", where="/url")
    assert refused.value.where == "/url"
    assert all("169.254" not in str(address) for address in connections)
    for path in ("/odd", "/loop"):
        with pytest.raises(BadRequest):
            outbound.fetch(CONTEXT, f"{url}{path}", where="/url")


def test_an_endless_answer_ends_at_the_limit(site: tuple[str, str]) -> None:
    url, place = site
    outbound = Outbound(OutboundSettings(allow=(place,), max_mb=1))
    with pytest.raises(PayloadTooLarge, match="1000000 bytes"):
        outbound.fetch(CONTEXT, f"{url}/endless", where="/url")
    with pytest.raises(PayloadTooLarge, match="10 bytes"):
        outbound.fetch(CONTEXT, f"{url}/endless", where="/url", max_bytes=10)


def test_data_urls_are_read_within_the_limit() -> None:
    outbound = Outbound(OutboundSettings(max_mb=1))
    assert outbound.fetch(CONTEXT, "data:text/plain;charset=utf-8,a%20b", where="/u").data == b"a b"
    fetched = outbound.fetch(CONTEXT, "data:text/csv;base64,YSxi", where="/u")
    assert (fetched.data, fetched.mime_type) == (b"a,b", "text/csv")
    assert outbound.fetch(CONTEXT, "data:,plain", where="/u").mime_type == ""
    for url in ("data:text/plain;base64,***", "data:nothing"):
        with pytest.raises(BadRequest):
            outbound.fetch(CONTEXT, url, where="/u")
    with pytest.raises(PayloadTooLarge):
        outbound.fetch(CONTEXT, "data:," + "x" * 1_000_001, where="/u")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed directory, with a link that leads out of it."""
    directory = tmp_path / "root"
    directory.mkdir()
    (directory / "rows.csv").write_text("a,b\n")
    (tmp_path / "secret.txt").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(directory / "pipe")
    return directory


def test_files_below_an_allowed_directory_are_read(root: Path) -> None:
    fetched = Outbound(OutboundSettings(roots=(root,))).fetch(CONTEXT, f"file://{root}/rows.csv", where="/u")
    assert (fetched.data, fetched.mime_type) == (b"a,b\n", "text/csv")


def test_no_other_file_is_reached(root: Path) -> None:
    outside = [
        "file:///etc/passwd",
        f"file://{root}/../secret.txt",
        f"file://{root}/%2e%2e/secret.txt",
        f"file://{root}/link",
        f"file://{root}-other/x",
        f"file:{root.parent}/secret.txt",
    ]
    strange = [
        "file://host/share/x",
        f"file://{root}/rows.csv%00.txt",
        f"file:////{root}/rows.csv",
        f"file://{root}/pipe",
        f"file://{root}",
        f"file://{root}/..%c0%afsecret.txt",
        f"file://{root}/" + "x" * 5000,
        "file:rows.csv",
    ]
    outbound = Outbound(OutboundSettings(roots=(root,)))
    for url in outside:
        with pytest.raises(Forbidden, match=r"outbound\.roots"):
            outbound.fetch(CONTEXT, url, where="/u")
    for url in strange:
        with pytest.raises(BadRequest):
            outbound.fetch(CONTEXT, url, where="/u")
    with pytest.raises(Forbidden):
        Outbound(OutboundSettings()).fetch(CONTEXT, f"file://{root}/rows.csv", where="/u")
