"""Options of a provider of type `remote::openai`."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from backends.config import Section

Dialect = Literal["openai", "vllm", "llama.cpp", "tgi"]
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class OpenAISettings(Section):
    """An OpenAI-compatible upstream and what is known of it."""

    base_url: str = Field(description="Where its API begins, mostly ending in `/v1`: `http://gpu-1:8000/v1`.")
    api_key: SecretStr | None = Field(
        None, description="Key for calls whose caller sends none. Better given as `${env.X}`."
    )
    provider_data_key: str = Field(
        "openai_api_key", min_length=1, description="Member of the caller's provider data that holds its own key."
    )
    dialect: Dialect = Field(
        "openai",
        description="Whose members beyond OpenAI's own it knows; SGLang knows those of `vllm`, Ollama none.",
    )
    vision: bool = Field(False, description="Whether its models read images.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers sent with every request.")
    context_length: int | None = Field(
        None, ge=1, description="Tokens that its models take, prompt and answer together, where it does not tell."
    )
    embedding_dimension: int | None = Field(
        None, ge=1, description="Size of its vectors; without it one text is embedded to learn it."
    )
    embedding_batch: int = Field(32, ge=1, le=2048, description="Texts in one embeddings request.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Seconds until a connection must stand.")
    read_timeout_s: float = Field(
        120.0, gt=0, description="Seconds it may be silent, the wait for a first token included."
    )
    retries: int = Field(2, ge=0, le=10, description="How often a request is sent again before its first byte.")
    retry_total_s: float = Field(10.0, ge=0, description="Seconds after which nothing is sent again.")
    connections: int = Field(256, ge=1, description="Requests that may run at a time; one more is answered with 429.")
    answer_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest answer; a longer one is given up.")

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        try:
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # the port
            valid = False
        if not valid or not is_key(value):
            raise ValueError("must be an http:// or https:// URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a user or a password; use api_key or headers")
        if parts.query or parts.fragment:
            raise ValueError("must end with a path, without `?` or `#`")
        return value.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_key(value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces")
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, text in value.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text.get_secret_value()):
                raise ValueError("must be header names with values of printable ASCII")
        return value


def is_key(text: str) -> bool:
    """Whether a text can be sent as a key in a header: printable ASCII without spaces."""
    return bool(text) and all("\x21" <= character <= "\x7e" for character in text)
