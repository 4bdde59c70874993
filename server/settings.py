"""All settings of a server, read from defaults, then a YAML file, then the environment, then the command line.

The file is named by `--config` or `ONNXSTACK_CONFIG`. A variable is the prefix `ONNXSTACK_` and the path of the setting
with `__` between its parts: `ONNXSTACK_SERVER__PORT=8080`. `docs/configuration.md` is generated from this module
(`python -m server.settings_page`), so a field's description is what operators read.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from backends.config import MEMORY_URL, BackendSettings, Section
from server.processes import RESERVED
from server.settings_file import InitialValues, InvalidSettings, SettingsFile, explain, unknown_variables

PREFIX = "ONNXSTACK_"
DELIMITER = "__"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"


def is_public(host: str) -> bool:
    """Whether others than this machine can connect to `host`. A name other than `localhost` counts as public."""
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host != "localhost"


class ServerSettings(Section):
    """The listening process and its workers."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on. A public one needs an API key.")
    port: int = Field(8321, ge=1, le=65535, description="TCP port to listen on.")
    workers: int = Field(1, ge=1, le=256, description="Worker processes. They share the engine.")
    threads: int = Field(64, ge=4, le=4096, description="Requests and streams that one worker serves at a time.")
    short_threads: int = Field(
        8, ge=1, le=256, description="Threads kept for GET requests, so that streams never block them."
    )
    ping_interval_s: float = Field(15.0, gt=0, description="Seconds of silence before an idle stream gets a `: ping`.")
    backlog: int = Field(2048, ge=16, description="Connections that may wait to be accepted.")
    keepalive_s: int = Field(30, ge=1, description="Seconds an idle connection is kept open.")
    graceful_timeout_s: int = Field(
        30, ge=6, description="Seconds that running requests get to finish after SIGTERM; then they are ended."
    )
    worker_timeout_s: int = Field(
        120, ge=10, description="Seconds without a heartbeat after which a worker is taken for dead and replaced."
    )
    proxies: tuple[str, ...] = Field(
        ("127.0.0.1",), description="Addresses whose `X-Forwarded-*` headers are believed; `*` believes all."
    )

    @property
    def url(self) -> str:
        """The base URL at which this machine reaches the server."""
        host = self.host.strip("[]")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class ApiKey(Section):
    """One API key: a name for logs and ownership, and either its hash or the key itself."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$", description="Who uses the key.")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-fA-F]{64}$", description="SHA-256 of the key in hex: `printf %s KEY | sha256sum`."
    )
    key: SecretStr | None = Field(
        None, description="The key itself; it is hashed at start. Better given as `${env.X}`."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.sha256 is None) == (self.key is None):
            raise ValueError("give either `sha256` or `key`")
        if self.key is not None and len(self.key.get_secret_value()) < 8:
            raise ValueError("`key` is shorter than 8 characters")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the key, lower-case hex."""
        if self.sha256 is not None:
            return self.sha256.lower()
        return hashlib.sha256(self.key.get_secret_value().encode() if self.key else b"").hexdigest()


class AuthSettings(Section):
    """Who may call. Without any key everyone who can connect may."""

    keys: tuple[ApiKey, ...] = Field(
        (), description="The API keys. When there is one, every path but liveness needs it."
    )
    allow_unauthenticated_public_bind: bool = Field(
        False,
        description="Listen on a public address although there is no key. Anyone who can connect may then do all.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [key.name for key in self.keys]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two keys are named {name!r}")
        return self

    def digests(self) -> dict[str, str]:
        """SHA-256 in hex -> name, for every key."""
        return {key.digest: key.name for key in self.keys}


class LimitSettings(Section):
    """What one client may ask for before it is refused."""

    body_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest request body; a larger one gets 413.")
    json_depth: int = Field(128, ge=8, le=1000, description="Deepest nesting of a JSON body; a deeper one gets 400.")
    json_values: int = Field(250_000, ge=1000, description="Values that a JSON body may hold, roughly; more gets 413.")
    generations: int = Field(
        48, ge=1, description="Generations that run or wait in one worker; one more gets 429. Below `server.threads`."
    )
    request_timeout_s: float = Field(600.0, gt=0, description="Seconds after which a call is given up.")
    body_timeout_s: float = Field(30.0, gt=0, description="Seconds a client may take to send its request body.")
    header_timeout_s: float = Field(15.0, gt=0, description="Seconds a client may take to send its request headers.")
    write_timeout_s: float = Field(
        60.0, gt=0, description="Seconds an answer waits for a client that does not read it."
    )


class LogSettings(Section):
    """What is logged, on standard error. Keys, bodies and provider data never are."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity that is logged.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`: one object per line; `console`: for people; `auto`: console on a terminal."
    )


class CorsSettings(Section):
    """Which web pages of other origins may call."""

    origins: tuple[str, ...] = Field((), description="Origins such as `https://app.example.com`; `*` allows all.")
    credentials: bool = Field(False, description="Whether such pages may send cookies; not together with `*`.")
    max_age_s: int = Field(600, ge=0, description="Seconds a browser may remember the answer to a preflight.")

    @model_validator(mode="after")
    def _no_credentials_for_all(self) -> Self:
        if self.credentials and "*" in self.origins:
            raise ValueError("`credentials` cannot be used together with the origin `*`; name the origins")
        return self


class Settings(BaseSettings, BackendSettings):
    """Every setting of a server."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    isolation: Literal["shared", "per_key"] = Field(
        "shared",
        description="`shared`: all keys see the same resources; `per_key`: each sees its own and the shared ones.",
    )
    log: LogSettings = LogSettings()
    cors: CorsSettings = CorsSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.isolation == "per_key" and not self.auth.keys:
            raise ValueError("isolation: per_key needs keys in auth.keys")
        if self.limits.generations >= self.server.threads:
            raise ValueError(
                f"limits.generations: {self.limits.generations} must be below server.threads ({self.server.threads}),"
                " or other requests starve"
            )
        if self.server.workers > 1:
            self._refuse_state_of_one_process()
        return self

    def _refuse_state_of_one_process(self) -> None:
        """Several workers would each keep state of their own: what one stores the others would not know."""
        workers = f"server.workers: {self.server.workers} workers share no memory"
        if self.database_url == MEMORY_URL:
            raise ValueError(f"{workers}; set server.workers: 1, or a database_url other than {MEMORY_URL}")
        for provider in self.providers:
            if (provider.api, provider.provider_type) == ("vector_io", "inline::memory"):
                raise ValueError(
                    f"{workers}; set server.workers: 1, or a provider_type other than inline::memory for the"
                    f" vector_io provider {provider.provider_id!r}"
                )

    def check_exposure(self, hosts: Iterable[str] | None = None) -> None:
        """Return if this server may listen where it is told to. hosts: where it will listen, if not at `server.host`.

        Raises:
            InvalidSettings: for a public address without an API key.
        """
        if self.auth.keys or self.auth.allow_unauthenticated_public_bind:
            return
        problems = [
            f"server.host: {host or 'every address'} can be reached from other machines, and there is no API key; add"
            " one to auth.keys, listen on 127.0.0.1, or set auth.allow_unauthenticated_public_bind: true"
            for host in ([self.server.host] if hosts is None else hosts)
            if is_public(host)
        ]
        if problems:
            raise InvalidSettings(problems)

    @property
    def backends(self) -> BackendSettings:
        """The part that `backends/` gets."""
        return BackendSettings.model_construct(**{name: getattr(self, name) for name in BackendSettings.model_fields})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitialValues(settings_cls)


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in force: defaults < file < environment < `overrides` (nested like the file).

    environ: the process environment (`os.environ`; pydantic-settings reads that one itself).

    Raises:
        InvalidSettings: with one line per problem: where it is, what is wrong, what would be right.
    """
    chosen = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    file = SettingsFile.read(chosen, environ) if chosen else SettingsFile.empty()
    unknown = unknown_variables(environ, Settings, PREFIX, DELIMITER, allowed={CONFIG_VARIABLE, *RESERVED})
    try:
        with InitialValues.of(file.values):
            settings = Settings(**dict(overrides or {}))
    except ValidationError as error:
        raise InvalidSettings([*unknown, *explain(error, Settings, file, environ, PREFIX, DELIMITER)]) from None
    except SettingsError as error:  # a variable that should hold JSON does not
        raise InvalidSettings([*unknown, f"environment: {error}; lists and sections are given as JSON"]) from None
    if unknown:
        raise InvalidSettings(unknown)
    return settings
