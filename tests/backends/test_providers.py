from __future__ import annotations

import pytest

from backends.config import ApiName, BackendSettings, EngineSettings, ProviderSettings
from backends.errors import BadRequest, Misconfigured, NoProvider, Unavailable
from backends.memory.embedder import MemoryEmbedder
from backends.providers import APIS, FACTORIES, Provider, Providers, check_providers, engine_settings


def settings(*providers: tuple[ApiName, str], defaults: dict[ApiName, str] | None = None) -> BackendSettings:
    return BackendSettings(
        providers=tuple(
            ProviderSettings(api=api, provider_id=name, provider_type="inline::test") for api, name in providers
        ),
        default_providers=defaults or {},
    )


def opened(settings: BackendSettings) -> Providers:
    factories = {
        (api, "inline::test"): lambda _settings, entry: Provider(entry.api, entry.provider_id, entry.provider_type)
        for api in APIS
    }
    return Providers(settings, factories)


def test_the_only_provider_serves_requests_that_name_none() -> None:
    providers = opened(settings(("safety", "a"), ("scoring", "b")))
    assert providers.resolve("safety", None).provider_id == "a"
    assert providers.resolve("scoring", None).provider_id == "b"


def test_of_several_the_default_serves_requests_that_name_none() -> None:
    providers = opened(settings(("safety", "a"), ("safety", "b"), defaults={"safety": "b"}))
    assert providers.resolve("safety", None).provider_id == "b"
    assert providers.resolve("safety", "a").provider_id == "a"


def test_several_without_a_default_must_be_named() -> None:
    providers = opened(settings(("safety", "a"), ("safety", "b")))
    with pytest.raises(BadRequest, match="several providers and no default: name one of `a`, `b`") as refused:
        providers.resolve("safety", None)
    assert refused.value.where == "/provider_id"


@pytest.mark.parametrize("name", ["x", "A", ""])
def test_an_unknown_provider_is_refused_with_the_known_ones(name: str) -> None:
    providers = opened(settings(("safety", "a"), ("safety", "b"), ("scoring", "x")))
    with pytest.raises(BadRequest, match=f"^provider `{name}` not found for api safety, known: `a`, `b`$"):
        providers.resolve("safety", name)


@pytest.mark.parametrize("name", [None, "a"])
def test_an_api_without_a_provider_says_so(name: str | None) -> None:
    with pytest.raises(NoProvider, match=r"^no provider configured for eval$"):
        opened(settings(("safety", "a"))).resolve("eval", name)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    wrong = BackendSettings(
        providers=(ProviderSettings(api="vector_io", provider_id="v", provider_type="inline::faiss"),)
    )
    with pytest.raises(
        Misconfigured, match=r"'inline::faiss' for api vector_io; known: inline::lancedb, inline::memory"
    ) as refused:
        Providers(wrong)
    assert refused.value.where == "providers.0.provider_type"


def test_an_id_used_twice_within_an_api_is_refused() -> None:
    opened(settings(("safety", "a"), ("scoring", "a")))
    with pytest.raises(Misconfigured, match="`a` of api safety is there twice") as refused:
        opened(settings(("safety", "a"), ("safety", "a")))
    assert refused.value.where == "providers.1.provider_id"


def test_options_that_a_type_does_not_take_are_refused() -> None:
    entry = ProviderSettings(api="safety", provider_id="a", provider_type="inline::memory", config={"speed": 1})
    with pytest.raises(Misconfigured, match=r"takes no options, found \['speed'\]"):
        Providers(BackendSettings(providers=(entry,)))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"slot": 4}, r"config\.slot: unknown option; did you mean slots"),
        ({"xyz": 4}, r"config\.xyz: unknown option; known: address, secret, device"),
        ({"slots": 0}, "slots: Input should be greater than or equal to 1"),
        ({"address": "http://x"}, "address: is ipc:///absolute/path"),
    ],
)
def test_wrong_options_are_refused_with_their_place_and_never_their_value(
    config: dict[str, object], reason: str
) -> None:
    first = ProviderSettings(api="safety", provider_id="a", provider_type="inline::memory")
    entry = ProviderSettings(api="inference", provider_id="o", provider_type="inline::onnx", config=config)
    with pytest.raises(Misconfigured, match=reason) as refused:
        check_providers(BackendSettings(providers=(first, entry)))
    assert refused.value.where == "providers.1.config"
    assert "http://x" not in str(refused.value)


def test_a_providers_own_options_come_before_those_of_all_engines() -> None:
    entry = ProviderSettings(api="inference", provider_id="o", provider_type="inline::onnx", config={"slots": 2})
    common = BackendSettings(engine=EngineSettings(slots=4, queue=7), providers=(entry,))
    check_providers(common)
    assert engine_settings(common, entry) == EngineSettings(slots=2, queue=7)


def test_a_default_that_is_no_provider_is_refused() -> None:
    with pytest.raises(Misconfigured, match="`x` is no provider of api safety; it has `a`") as refused:
        opened(settings(("safety", "a"), ("scoring", "x"), defaults={"safety": "x"}))
    assert refused.value.where == "default_providers.safety"


def test_safety_takes_its_default_provider_where_there_is_one_and_nothing_else_is_said() -> None:
    assert Providers(BackendSettings()).resolve("safety", None).provider_id == "guardian"
    assert BackendSettings(default_providers={"safety": "code-scanner"}).chosen_providers == {"safety": "code-scanner"}
    assert settings(("safety", "a")).chosen_providers == {}


def test_every_api_has_an_in_memory_form_that_answers_and_closes_twice() -> None:
    assert {api for api, kind in FACTORIES if kind == "inline::memory"} == set(APIS)
    entries = tuple(ProviderSettings(api=api, provider_id="m", provider_type="inline::memory") for api in APIS)
    providers = Providers(BackendSettings(providers=entries))
    assert [(provider.api, provider.provider_type) for provider in providers.list()] == [
        (api, "inline::memory") for api in APIS
    ]
    assert set(providers.services()) == {
        "inference:m:generator",
        "inference:m:embedder",
        "inference:m:classifier",
        "vector_io:m:vectors",
        "agents:m:agents",
        "datasetio:m:rows",
        "telemetry:m:telemetry",
    }
    for service in providers.services().values():
        service.ping()
    providers.close()
    providers.close()


def test_the_types_of_an_api_are_named_once() -> None:
    providers = opened(settings(("safety", "a"), ("safety", "b")))
    assert providers.types("safety") == ["inline::test"]
    assert providers.types("eval") == []


def test_a_provider_that_fails_to_open_closes_those_before_it() -> None:
    closed = []

    class Watched(MemoryEmbedder):
        def close(self) -> None:
            closed.append(True)

    def fail(_settings: BackendSettings, _entry: ProviderSettings) -> Provider:
        raise Unavailable("not today")

    factories = {
        ("inference", "inline::test"): lambda _settings, _entry: Provider("inference", "a", "t", embedder=Watched()),
        ("safety", "inline::test"): fail,
    }
    with pytest.raises(Unavailable, match="not today"):
        Providers(settings(("inference", "a"), ("safety", "b")), factories)
    assert closed == [True]
