"""The kinds of resources of the contract: which operations register, list, retrieve and unregister them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """member, parameter: what an id is called in a body and in a path. api: whose providers serve it.

    unregister is None where the contract has no such operation.
    """

    name: str
    register: str
    list: str
    retrieve: str
    unregister: str | None
    member: str
    parameter: str
    api: str

    def operations(self, *names: str) -> tuple[str, ...]:
        """The operations of these fields, as far as there are such: `operations("register", "list")`."""
        return tuple(found for name in names if (found := getattr(self, name)) is not None)


def _kind(name: str, member: str, api: str, *, undo: bool = True, parameter: str = "", retrieve: str = "") -> Kind:
    return Kind(
        name,
        f"register_{name}",
        f"list_{name}s",
        retrieve or f"retrieve_{name}",
        f"unregister_{name}" if undo else None,
        member,
        parameter or member,
        api,
    )


MODEL = _kind("model", "model_id", "inference")
VECTOR_DB = _kind("vector_db", "vector_db_id", "vector_io")
DATASET = _kind("dataset", "dataset_id", "datasetio")
TOOL_GROUP = _kind("tool_group", "toolgroup_id", "tool_runtime", retrieve="get_tool_group")
SHIELD = _kind("shield", "shield_id", "safety", undo=False, parameter="identifier")
SCORING_FUNCTION = _kind("scoring_function", "scoring_fn_id", "scoring", undo=False)
EVAL_TASK = _kind("eval_task", "eval_task_id", "eval", undo=False)
KINDS = (MODEL, VECTOR_DB, DATASET, TOOL_GROUP, SHIELD, SCORING_FUNCTION, EVAL_TASK)
