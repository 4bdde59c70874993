"""Where an engine listens, and what protects it there.

An ipc socket is protected by the permissions of its directory. TCP is encrypted, and both ends authenticated, by CURVE
(https://rfc.zeromq.org/spec/26/) with key pairs that both ends derive from the one secret they share.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from backends.config import EngineSettings
from backends.errors import Misconfigured

_IPC, _TCP = "ipc://", "tcp://"
_SALT = b"onnxstack engine 1"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The key pairs of both ends, Z85 text."""

    server_public: bytes
    server_secret: bytes = field(repr=False)
    client_public: bytes
    client_secret: bytes = field(repr=False)

    @classmethod
    def derived(cls, secret: str) -> CurveKeys:
        """The pairs that a secret stands for. scrypt (RFC 7914), since people choose secrets that can be guessed."""
        seed = hashlib.scrypt(secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=64)
        server, client = z85.encode(seed[:32]), z85.encode(seed[32:])
        return cls(zmq.curve_public(server), server, zmq.curve_public(client), client)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A ZeroMQ address and its keys; None where the file system protects it."""

    address: str
    keys: CurveKeys | None = None


def endpoint_of(settings: EngineSettings) -> Endpoint:
    """The endpoint that the settings name.

    Raises:
        Misconfigured: a TCP address without a secret, or an ipc path that is too long.
    """
    address = settings.address
    path = ipc_path(address)
    if path is not None and len(os.fsencode(path)) > zmq.IPC_PATH_MAX_LEN:
        raise Misconfigured(
            f"{address}: a socket's path has at most {zmq.IPC_PATH_MAX_LEN} bytes; choose a shorter one",
            where="engine.address",
        )
    if not address.startswith(_TCP):
        return Endpoint(address)
    if settings.secret is None:
        raise Misconfigured(
            f"{address} is open to other machines: give engine.secret, the same at both ends", where="engine.secret"
        )
    return Endpoint(address, CurveKeys.derived(settings.secret.get_secret_value()))


def ipc_path(address: str) -> Path | None:
    """The socket's file; None for an address that is not ipc."""
    return Path(address.removeprefix(_IPC)) if address.startswith(_IPC) else None


def refuse_taken(address: str) -> None:
    """ZeroMQ would take the path of an ipc socket away from whoever listens there. Raises Misconfigured."""
    path = ipc_path(address)
    if path is None or not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:  # left over
            return
    raise Misconfigured(f"an engine listens at {address} already", where="engine.address")


def socket_parent(preferred: Path, longest: int) -> Path:
    """`preferred`, or a short directory of this user below the temporary one when sockets `longest` bytes below it
    would have too long a path.

    Raises:
        Misconfigured: that directory is another user's, or open to others.
    """
    if len(os.fsencode(preferred)) + 1 + longest <= zmq.IPC_PATH_MAX_LEN:
        return preferred
    short = Path(tempfile.gettempdir()) / f"onnxstack-{os.getuid()}"
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Misconfigured(
            f"{preferred} is too long for a socket's path, and {short}, which would be used instead, is not a "
            "directory of this user alone (mode 0700); choose a shorter data_dir or mend that directory",
            where="data_dir",
        )
    return short
