"""What the server says of itself."""

from __future__ import annotations

from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack

METHODS = {"get", "post", "delete", "put", "patch", "head", "options"}


@rule("health", source="contract: HealthInfo")
def test_a_server_that_answers_is_healthy(stack: Stack) -> None:
    """GET /v1/health says a status that is not empty."""
    answer = stack.call("health")
    answer.must(bool(answer.json()["status"].strip()), "the status is empty")


@rule("version", source="contract: VersionInfo")
def test_the_version_is_said(stack: Stack) -> None:
    """GET /v1/version says a version that is not empty."""
    answer = stack.call("version")
    answer.must(bool(answer.json()["version"].strip()), "the version is empty")


@rule("list_providers", "list_models", source="contract: ProviderInfo; client: providers are picked by their api")
def test_every_model_has_a_provider_that_is_listed(stack: Stack) -> None:
    """The provider that a model names is in the list of providers, under the API of inference."""
    answer = stack.call("list_providers")
    known = {provider["provider_id"] for provider in answer.json()["data"] if provider["api"] == "inference"}
    for model in stack.listed("list_models"):
        answer.must(
            model["provider_id"] in known,
            f"the model {model['identifier']!r} is served by {model['provider_id']!r}, which is not in the list",
        )


@rule("list_routes", source="contract: RouteInfo")
def test_the_routes_that_work_are_listed(stack: Stack) -> None:
    """The list of routes has those that this run has used, with an HTTP method each."""
    answer = stack.call("list_routes")
    routes = {(route["method"].lower(), route["route"]) for route in answer.json()["data"]}
    for method, _ in routes:
        answer.must(method in METHODS, f"{method!r} is no HTTP method")
    for operation in ("list_routes", "list_models"):
        entry = stack.contract.operations[operation]
        answer.must(
            (entry.method.lower(), entry.path) in routes, f"{entry.label} is answered, and is not in the list of routes"
        )
