"""The registered resources, one class per kind, on top of the ResourceStore and the providers."""

from __future__ import annotations

from backends.resources.datasets import Datasets
from backends.resources.eval_tasks import EvalTasks
from backends.resources.models import Models
from backends.resources.scoring_functions import ScoringFunctions
from backends.resources.shields import Shields
from backends.resources.tool_groups import BUILTIN, ToolGroups
from backends.resources.vector_dbs import OpenVectorDb, VectorDbs

__all__ = [
    "BUILTIN",
    "Datasets",
    "EvalTasks",
    "Models",
    "OpenVectorDb",
    "ScoringFunctions",
    "Shields",
    "ToolGroups",
    "VectorDbs",
]
