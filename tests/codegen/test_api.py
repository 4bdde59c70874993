"""mypy names the handler that no longer fits, from the Protocols and the models alone."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

from codegen import api, models
from codegen.contract import load

from .conftest import ROOT, Plant

HANDLERS = {
    "inspect": """
from generated.models import HealthInfo, VersionInfo, ListProvidersResponse, ListRoutesResponse
def health(call: int) -> HealthInfo: return HealthInfo(status="OK")
def version(call: int) -> VersionInfo: return VersionInfo(version="1")
def list_providers(call: int) -> ListProvidersResponse: return ListProvidersResponse(data=[])
def list_routes(call: int) -> ListRoutesResponse: return ListRoutesResponse(data=[])
""",
    "datasetio": """
from generated.models import AppendRowsRequest, PaginatedRowsResult
def get_rows_paginated(call: int, dataset_id: str, rows_in_page: int, page_token: str | None = None,
                       filter_condition: str | None = None) -> PaginatedRowsResult:
    return PaginatedRowsResult(rows=[], total_count=0)
def append_rows(call: int, body: AppendRowsRequest) -> None:
    print(body.rows)
""",
    "safety": """
from generated.models import RunShieldRequest, RunShieldResponse
def run_shield(call: int, body: RunShieldRequest) -> RunShieldResponse:
    return RunShieldResponse()
""",
}
FIT = """
from generated import api
from handlers import datasetio, inspect, safety
first: api.Inspect[int] = inspect
second: api.Datasetio[int] = datasetio
third: api.Safety[int] = safety
"""


def mypy(checkout: Path, folder: Path) -> str:
    """What mypy says about the handlers above with the contract in `checkout`."""
    contract = load(checkout / "openapi.yaml", checkout / "codegen")
    for package in ("generated", "handlers"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("")
    (folder / "generated" / "models.py").write_text(models.render(contract.schemas))
    (folder / "generated" / "api.py").write_text(api.render(contract.operations))
    for name, text in HANDLERS.items():
        (folder / "handlers" / f"{name}.py").write_text(text)
    (folder / "fit.py").write_text(FIT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={ROOT / '.mypy_cache' / 'fit'}",
    ]
    done = subprocess.run([*command, "fit.py"], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_mypy_names_what_no_longer_fits(plant: Plant, checkout: Path, tmp_path: Path) -> None:
    assert "Success" in mypy(checkout, tmp_path / "before")

    def change(contract: dict[str, Any]) -> None:
        schemas = contract["components"]["schemas"]
        # renamed, made required, removed; and on an operation: an added parameter
        schemas["HealthInfo"]["properties"] = {"state": {"type": "string"}}
        schemas["HealthInfo"]["required"] = ["state"]
        schemas["RunShieldResponse"]["required"] = ["violation"]
        del schemas["AppendRowsRequest"]["properties"]["rows"]
        schemas["AppendRowsRequest"]["required"] = ["dataset_id"]
        parameters = contract["paths"]["/v1/datasetio/rows"]["get"]["parameters"]
        parameters.append({**copy.deepcopy(parameters[0]), "name": "order"})

    said = mypy(plant(change), tmp_path / "after")
    assert 'handlers/inspect.py:3: error: Unexpected keyword argument "status" for "HealthInfo"' in said
    assert 'handlers/safety.py:4: error: Missing named argument "violation"' in said
    assert 'handlers/datasetio.py:7: error: "AppendRowsRequest" has no attribute "rows"' in said
    assert "fit.py:5: error: Incompatible types in assignment" in said
    assert "get_rows_paginated" in said


def test_the_published_protocols_are_those_of_the_contract(checkout: Path) -> None:
    contract = load(checkout / "openapi.yaml", checkout / "codegen")
    assert (ROOT / "generated" / "api.py").read_text() == api.render(contract.operations)
