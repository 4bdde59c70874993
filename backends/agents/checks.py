"""All that can be wrong with an agent or a turn and that can be known before its stream begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from backends.agents.tools import RAG_GROUP, Toolbox, toolbox
from backends.context import CallContext
from backends.errors import BadRequest, UnknownReference
from backends.generation import sampling_of
from backends.inference import Sampling
from backends.ports import JsonObject, TextGenerator
from backends.resources import Models, Shields, ToolGroups, VectorDbs
from backends.resources.rules import name_some
from generated.models import AgentConfig, AgentTool, LLMRAGQueryGeneratorConfig, RAGQueryConfig

_RAG_ARGUMENTS = ("vector_db_ids", "query_config")


@dataclass(frozen=True, slots=True)
class RetrievalPlan:
    """What `builtin::rag` is to look through, and how."""

    vector_db_ids: tuple[str, ...]
    config: RAGQueryConfig | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn runs with. model: the provider's name. retrieval: None where the turn does not retrieve."""

    config: AgentConfig
    generator: TextGenerator
    model: str
    sampling: Sampling
    tools: Toolbox
    input_shields: tuple[str, ...]
    output_shields: tuple[str, ...]
    retrieval: RetrievalPlan | None


@dataclass(frozen=True, slots=True)
class Checks:
    """Looks up what agents name."""

    models: Models
    shields: Shields
    tool_groups: ToolGroups
    vector_dbs: VectorDbs

    def plan(self, context: CallContext, config: AgentConfig, toolgroups: Sequence[AgentTool] | None = None) -> Plan:
        """What an agent's turns run with; `toolgroups`: what one turn of it names.

        Raises:
            UnknownReference: a model, shield, tool group or vector db that is not registered, by name and place.
            BadRequest: two tools of one name, a tool that is required where there is none, wrong arguments of
            `builtin::rag`.
        """
        where = "/agent_config"
        generator, model = self.models.generator(context, config.model, where=f"{where}/model")
        for member in ("input_shields", "output_shields"):
            self._check_shields(context, getattr(config, member) or (), f"{where}/{member}")
        tools = toolbox(
            context,
            self.tool_groups,
            configured=config.toolgroups or (),
            client_tools=config.client_tools or (),
            of_turn=toolgroups,
            where=where,
        )
        if config.tool_choice == "required" and not tools.definitions:
            raise BadRequest(
                "tool_choice is `required`, but there is no tool that the model could call",
                where=f"{where}/tool_choice",
            )
        return Plan(
            config,
            generator,
            model,
            sampling_of(config.sampling_params),
            tools,
            tuple(config.input_shields or ()),
            tuple(config.output_shields or ()),
            None if tools.retrieval is None else self._retrieval(context, tools.retrieval),
        )

    def _check_shields(self, context: CallContext, shields: Sequence[str], where: str) -> None:
        for position, shield_id in enumerate(shields):
            if self.shields.get(context, shield_id) is None:
                there = name_some([shield.identifier for shield in self.shields.list(context)])
                raise UnknownReference(
                    f"shield {shield_id!r} not found; registered: {there}", where=f"{where}/{position}"
                )

    def _retrieval(self, context: CallContext, arguments: JsonObject) -> RetrievalPlan:
        where = f"/toolgroups/{RAG_GROUP}/args"
        unknown = sorted(set(arguments) - set(_RAG_ARGUMENTS))
        if unknown:
            raise BadRequest(
                f"{RAG_GROUP} takes {' and '.join(_RAG_ARGUMENTS)}, not {unknown[0]!r}", where=f"{where}/{unknown[0]}"
            )
        ids = arguments.get("vector_db_ids") or []
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise BadRequest("vector_db_ids is a list of the ids of vector dbs", where=f"{where}/vector_db_ids")
        for position, name in enumerate(ids):
            if self.vector_dbs.get(context, name) is None:
                there = name_some([db.identifier for db in self.vector_dbs.list(context)])
                raise UnknownReference(
                    f"vector db {name!r} not found; registered: {there}", where=f"{where}/vector_db_ids/{position}"
                )
        return RetrievalPlan(tuple(ids), self._query_config(context, arguments.get("query_config"), where))

    def _query_config(self, context: CallContext, value: object, where: str) -> RAGQueryConfig | None:
        if value is None:
            return None
        try:
            config = RAGQueryConfig.model_validate(value)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "/".join(map(str, fault["loc"]))
            raise BadRequest(fault["msg"], where=f"{where}/query_config/{place}") from None
        if isinstance(config.query_generator_config, LLMRAGQueryGeneratorConfig):
            self.models.generator(
                context,
                config.query_generator_config.model,
                where=f"{where}/query_config/query_generator_config/model",
            )
        return config
