from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from backends.config import BackendSettings, ProviderSettings
from backends.errors import Misconfigured
from backends.providers import OPTIONS, Providers
from tests.servers import ROOT


def opened(**config: Any) -> Providers:
    entry = ProviderSettings(api="inference", provider_id="gpu", provider_type="remote::openai", config=config)
    return Providers(BackendSettings(providers=(entry,)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "providers.0.config.base_url: is required"),
        ({"base_url": "http://x/v1", "api_kee": "canary"}, "config.api_kee: unknown option; did you mean api_key?"),
        ({"base_url": "http://x/v1", "zzz": 1}, "config.zzz: unknown option; known: base_url, api_key"),
        ({"base_url": "gpu:8000"}, "config.base_url: must be an http:// or https:// URL"),
        ({"base_url": "http://gpu:99999/v1"}, "config.base_url: must be an http:// or https:// URL"),
        ({"base_url": "http://g pu/v1"}, "config.base_url: must be an http:// or https:// URL"),
        ({"base_url": "http://me:canary@x/v1"}, "config.base_url: must not hold a user or a password"),
        ({"base_url": "http://x/v1?key=canary"}, "config.base_url: must end with a path"),
        ({"base_url": "http://x/v1", "api_key": "canary key"}, "config.api_key: must be printable ASCII"),
        ({"base_url": "http://x/v1", "headers": {"a": "canary\n"}}, "config.headers: must be header names"),
        ({"base_url": "http://x/v1", "dialect": "canary"}, "config.dialect: Input should be 'openai', 'vllm'"),
        ({"base_url": "http://x/v1", "retries": -1}, "config.retries: Input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_option_is_told_with_its_place_and_without_its_value(config: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        opened(**config)
    assert said in refused.value.message
    assert "canary" not in refused.value.message
    assert refused.value.where == "providers.0.config"


def test_an_upstream_that_is_not_there_opens_all_the_same() -> None:
    providers = opened(base_url="http://127.0.0.1:9/v1/")
    (provider,) = providers.list()
    assert provider.remote
    assert set(providers.services()) == {"inference:gpu:generator", "inference:gpu:embedder"}
    providers.close()
    providers.close()


def test_a_server_without_an_upstream_does_not_load_what_it_would_need() -> None:
    program = "import sys, backends.providers; print(sorted({'httpx2', 'openai'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_option_says_what_it_is() -> None:
    for section in OPTIONS.values():
        for name, field in section.model_fields.items():
            assert (field.description or "").endswith("."), name
