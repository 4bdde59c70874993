"""Code of models, run where it can harm nothing: `inline::code-interpreter`."""

from __future__ import annotations
