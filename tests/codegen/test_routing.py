from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Response, jsonify

from .conftest import ROOT

# Connexion's own imports and its test client warn about what its dependencies will drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

ROUTING: dict[str, Any] = json.loads((ROOT / "generated" / "routing.json").read_text())


def operation_of(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = ROUTING["paths"][path][method]
    return found


@pytest.fixture(scope="module")
def client() -> Any:
    """Connexion itself on the document; every operation answers with its name and its arguments."""
    import connexion
    from connexion.resolver import Resolver

    def resolve(name: str) -> Any:
        def handler(**arguments: Any) -> Response:
            return jsonify({"operation": name, "arguments": arguments})

        return handler

    app = connexion.FlaskApp("routing")
    app.add_api(ROUTING, resolver=Resolver(resolve), strict_validation=True)
    return app.test_client()


def test_connexion_loads_it_and_routes_ids_with_slashes(client: Any) -> None:
    answer = client.get("/v1/models/meta-llama/Llama-3.2-3B").json()
    assert answer == {"operation": "retrieve_model", "arguments": {"model_id": "meta-llama/Llama-3.2-3B"}}
    answer = client.get("/v1/eval/tasks/meta::a/b/jobs/j/result").json()
    assert answer["arguments"] == {"task_id": "meta::a/b", "job_id": "j"}


def test_ids_that_we_make_ourselves_hold_no_slash(client: Any) -> None:
    assert client.get("/v1/agents/a/b/session/s").status_code == 404


def test_scalars_are_typed_and_ranges_are_checked(client: Any) -> None:
    answer = client.get("/v1/datasetio/rows?dataset_id=d&rows_in_page=-1").json()
    assert answer["arguments"] == {"dataset_id": "d", "rows_in_page": -1}
    assert client.get("/v1/datasetio/rows?dataset_id=d&rows_in_page=-2").status_code == 400


def test_lists_of_strings_are_split_and_objects_are_left_to_our_parser(client: Any) -> None:
    filters = '[{"key":"a","op":"eq","value":1}]'
    answer = client.get("/v1/telemetry/traces", params={"order_by": "a,b", "attribute_filters": filters}).json()
    assert answer["arguments"]["order_by"] == ["a", "b"]
    assert answer["arguments"]["attribute_filters"] == filters


def test_bodies_are_open_and_name_their_model() -> None:
    body = operation_of("/v1/inference/chat-completion", "post")["requestBody"]
    assert body == {"required": True, "content": {"application/json": {"schema": {"x-model": "ChatCompletionRequest"}}}}


def test_only_success_is_listed_so_that_connexion_does_not_mix_media_types() -> None:
    for item in ROUTING["paths"].values():
        for operation in item.values():
            assert set(operation["responses"]) == {"200"}
    chat = operation_of("/v1/inference/chat-completion", "post")["responses"]["200"]["content"]
    assert list(chat) == ["application/json", "text/event-stream"]


def test_security_is_not_connexions_business() -> None:
    assert "security" not in ROUTING
    assert "components" not in ROUTING
