"""Options of the providers of web search and Wolfram Alpha."""

from __future__ import annotations

from pydantic import Field, SecretStr

from backends.config import Section


class SearchSettings(Section):
    """One service. `config` of its provider."""

    api_key: SecretStr | None = Field(None, description="For callers who bring no key of their own.")
    base_url: str = Field("", description="Of the service, where it is not the usual one.")
    max_results: int = Field(5, ge=1, le=20, description="Results that a model is shown.")
    timeout_s: float = Field(15.0, gt=0, description="Seconds that the service may take.")
