"""The browsable API reference at `/docs`: Swagger UI 5, which reads OpenAPI 3.1, from the package `flask-swagger-ui`.

Nothing is fetched from another host, and the content security policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from functools import cache, partial
from pathlib import Path

from server.http.documents import Document, Source

ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_YEAR_S = 31_536_000


@cache
def _assets_directory() -> Path:
    # Found without importing the package: its __init__ imports Flask, of which only the files beside it are needed.
    spec = importlib.util.find_spec("flask_swagger_ui")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package flask-swagger-ui is not installed")
    return Path(spec.origin).parent / "dist"


def reference_documents() -> dict[str, Source]:
    """Path -> document: the page and its assets, read once."""
    documents: dict[str, Source] = {"/docs": reference_page}
    for name in ASSETS:
        documents[f"/docs/assets/{name}"] = partial(_asset, name)
    return documents


@cache
def _asset(name: str) -> Document:
    headers = (
        ("content-type", ASSETS[name]),
        ("cache-control", f"private, max-age={_YEAR_S}, immutable"),
        ("x-content-type-options", "nosniff"),
    )
    return Document((_assets_directory() / name).read_bytes(), headers)


@cache
def reference_page() -> Document:
    """The page. Its links are relative, so that it also works behind a proxy that adds a prefix."""
    contract, assets = "openapi.json", "docs/assets"
    version = hashlib.sha256((_assets_directory() / "swagger-ui-bundle.js").read_bytes()).hexdigest()[:12]
    options = {
        "url": contract,
        "dom_id": "#reference",
        "deepLinking": True,
        "docExpansion": "list",
        "filter": True,
        "displayRequestDuration": True,
        "validatorUrl": None,
        "queryConfigEnabled": False,
    }
    script = f"window.ui = SwaggerUIBundle({json.dumps(options)});"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    body = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API reference</title>
<link rel="icon" type="image/png" href="{assets}/favicon-32x32.png?{version}">
<link rel="stylesheet" href="{assets}/swagger-ui.css?{version}">
</head>
<body>
<div id="reference"></div>
<noscript>This page needs JavaScript. The contract itself is at <a href="{contract}">{contract}</a>.</noscript>
<script src="{assets}/swagger-ui-bundle.js?{version}"></script>
<script>{script}</script>
</body>
</html>
"""
    policy = (
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        f"script-src 'self' 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Document(
        body.encode(),
        (
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ),
    )
