"""What stops a generation: a decision that only a person can take.

CodegenError
├── OverlayError        an overlay action that no longer fits the contract
├── ContractError       a shape in the contract that the generators do not know
└── UnacceptedChangeError  the contract moved; `--accept` records that this was seen
"""

from __future__ import annotations


class CodegenError(Exception):
    """The message says what is wrong, where, and what would be right."""


class OverlayError(CodegenError):
    """One or more overlay actions matched nothing, changed nothing or cannot be merged."""


class ContractError(CodegenError):
    """The contract uses a shape that the generators do not know."""


class UnacceptedChangeError(CodegenError):
    """The contract differs from the one recorded in `codegen/lock.json`."""
