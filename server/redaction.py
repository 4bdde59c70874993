"""Masks what looks like a secret, for logs and for `onnxstack config show`."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "**********"
_SECRET_NAME = re.compile(
    r"(?i)(^|[_-])(authorization|password|passwd|secret|token|api[_-]?key|key|sha256|provider[_-]?data|cookie)$"
)
_SECRET_TEXT = (
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@"), rf"\g<1>{HIDDEN}@"),
    (re.compile(r"(?i)(x-llamastack-provider-data[\"']?\s*[:=]\s*).*"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"(?i)(\"?[a-z_]*(?:api_key|password|secret)\"?\s*[:=]\s*\"?)[^\s\",}]+"), rf"\g<1>{HIDDEN}"),
)


def mask(value: Any) -> Any:
    """The value with everything that looks like a secret replaced. Understands text, mappings and sequences."""
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXT:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        return {k: HIDDEN if _SECRET_NAME.search(str(k)) and v else _mask_member(k, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    return value


def _mask_member(name: Any, value: Any) -> Any:
    # What an operator adds as a header to an upstream's requests is mostly a key, whatever the header is called.
    if name == "headers" and isinstance(value, dict):
        return dict.fromkeys(value, HIDDEN)
    return mask(value)
