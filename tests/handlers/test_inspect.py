from __future__ import annotations

import pytest

from backends.errors import NotBuilt, StackError
from generated.models import ProviderInfo
from generated.operations import OPERATIONS
from handlers import agents, inspect
from handlers.call import Call


def test_health_is_ok(call: Call) -> None:
    assert inspect.health(call).status == "OK"


def test_the_version_is_the_servers(call: Call) -> None:
    assert inspect.version(call).version == "1.2.3"


def test_providers_are_those_that_run(call: Call) -> None:
    listed = inspect.list_providers(call).data
    assert ProviderInfo(api="vector_io", provider_id="memory", provider_type="inline::memory") in listed
    assert [provider.api for provider in listed] == [
        "inference",
        "vector_io",
        "safety",
        "agents",
        "datasetio",
        "scoring",
        "eval",
        "post_training",
        "tool_runtime",
        "telemetry",
    ]


def test_routes_name_the_providers_behind_them(call: Call) -> None:
    routes = {(route.method, route.route): route.provider_types for route in inspect.list_routes(call).data}
    assert routes["post", "/v1/inference/chat-completion"] == ["inline::memory"]
    assert routes["delete", "/v1/models/{model_id}"] == ["inline::memory"]
    assert routes["get", "/v1/health"] == []


def test_exactly_the_operations_that_are_built_are_routes(call: Call) -> None:
    routes = {(route.method, route.route) for route in inspect.list_routes(call).data}
    for operation in OPERATIONS.values():
        listed = (operation.method.lower(), operation.path) in routes
        assert listed == inspect.is_built(operation), operation.operation_id
    assert len(routes) >= 35


def test_a_stub_is_known_as_one(call: Call) -> None:
    assert inspect.is_built(OPERATIONS["list_models"])
    if not inspect.is_built(OPERATIONS["delete_agent"]):
        with pytest.raises(NotBuilt):
            agents.delete_agent(call, "x")
    else:
        with pytest.raises(StackError) as refused:
            agents.delete_agent(call, "x")
        assert not isinstance(refused.value, NotBuilt)


def test_every_module_of_a_provided_api_is_in_the_table() -> None:
    without_provider = {operation.module for operation in OPERATIONS.values()} - set(inspect.APIS)
    assert without_provider == {"inspect", "post_training", "synthetic_data_generation"}
