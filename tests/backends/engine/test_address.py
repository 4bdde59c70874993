"""Addresses, keys and directories of engines."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from backends.config import EngineSettings
from backends.engine.address import CurveKeys, endpoint_of, socket_parent
from backends.errors import Misconfigured

SECRET = SecretStr("a secret of sixteen")


@pytest.mark.parametrize("address", ["", "inproc", "ipc:///run/engine", "tcp://host:1", "tcp://[::1]:65535"])
def test_addresses_of_the_known_forms_are_taken(address: str) -> None:
    assert EngineSettings(address=address).address == address


@pytest.mark.parametrize("address", ["ipc://relative", "tcp://host", "tcp://:0", "http://host:1", "inproc://x", "x"])
def test_other_addresses_are_refused_with_the_forms(address: str) -> None:
    with pytest.raises(ValidationError, match="is ipc:///absolute/path, tcp://host:port, inproc, or empty"):
        EngineSettings(address=address)


def test_tcp_without_a_secret_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"give engine\.secret") as refusal:
        endpoint_of(EngineSettings(address="tcp://host:9"))
    assert refusal.value.where == "engine.secret"


def test_both_ends_derive_the_same_keys_and_show_none() -> None:
    mine, other = (endpoint_of(EngineSettings(address="tcp://host:9", secret=SECRET)) for _ in range(2))
    assert mine == other
    assert mine.keys is not None
    assert mine.keys != CurveKeys.derived("another secret, longer")
    for key in (mine.keys.server_secret, mine.keys.client_secret):
        assert key.decode() not in repr(mine)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 16"):
        EngineSettings(secret=SecretStr("short"))


def test_a_path_that_is_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(Misconfigured, match="at most 107 bytes"):
        endpoint_of(EngineSettings(address=f"ipc:///{'x' * 120}"))


def test_sockets_of_a_deep_data_directory_lie_in_a_short_one_of_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = tmp_path / ("x" * 100)
    assert socket_parent(tmp_path, 20) == tmp_path
    short = socket_parent(deep, 20)
    assert short == socket_parent(deep, 20) == tmp_path / f"onnxstack-{os.getuid()}"
    assert short.stat().st_mode & 0o777 == 0o700
    short.chmod(0o755)
    with pytest.raises(Misconfigured, match="not a directory of this user alone"):
        socket_parent(deep, 20)
