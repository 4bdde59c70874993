"""What is registered: models, shields, vector dbs, datasets, scoring functions, eval tasks."""

from __future__ import annotations

from typing import Protocol, TypeVar

from generated.models import (
    Dataset,
    EvalTask,
    ListDatasetsResponse,
    ListEvalTasksResponse,
    ListModelsResponse,
    ListScoringFunctionsResponse,
    ListShieldsResponse,
    ListVectorDBsResponse,
    Model,
    RegisterDatasetRequest,
    RegisterEvalTaskRequest,
    RegisterModelRequest,
    RegisterScoringFunctionRequest,
    RegisterShieldRequest,
    RegisterVectorDbRequest,
    ScoringFn,
    Shield,
    VectorDB,
)
from tests.conformance.standin.wire import Refused

PROVIDER = "standin"


class _Identified(Protocol):
    identifier: str


R = TypeVar("R", bound=_Identified)


class Kind(dict[str, R]):
    """The resources of one kind by id. name: for messages."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def put(self, resource: R) -> R:
        """Register; the same id again replaces."""
        self[resource.identifier] = resource
        return resource

    def used(self, identifier: str) -> R:
        """One that a request names.

        Raises:
            Refused: 400, there is none.
        """
        if identifier not in self:
            raise Refused(400, f"{self.name} {identifier!r} is not registered")
        return self[identifier]

    def taken(self, identifier: str) -> R:
        """Remove one.

        Raises:
            Refused: 404, there is none.
        """
        if identifier not in self:
            raise Refused(404, f"{self.name} {identifier!r} not found")
        return self.pop(identifier)


def provider(asked: str | None) -> str:
    """The only provider there is.

    Raises:
        Refused: 400, another one is asked for.
    """
    if asked not in (None, PROVIDER):
        raise Refused(400, f"provider {asked!r} not found")
    return PROVIDER


class Resources:
    """The registries. Every id of a caller is any text that is not empty."""

    def __init__(self) -> None:
        self.models: Kind[Model] = Kind("model")
        self.shields: Kind[Shield] = Kind("shield")
        self.vector_dbs: Kind[VectorDB] = Kind("vector db")
        self.datasets: Kind[Dataset] = Kind("dataset")
        self.scoring_functions: Kind[ScoringFn] = Kind("scoring function")
        self.eval_tasks: Kind[EvalTask] = Kind("eval task")

    def language_model(self, model_id: str) -> Model:
        """A model that generates text.

        Raises:
            Refused: 400, there is none of this id, or it is an embedding model.
        """
        model = self.models.used(model_id)
        if model.model_type != "llm":
            raise Refused(400, f"{model_id!r} generates no text")
        return model

    def embedding_model(self, model_id: str) -> Model:
        """A model that embeds text.

        Raises:
            Refused: 400, there is none of this id, or it generates text.
        """
        model = self.models.used(model_id)
        if model.model_type != "embedding":
            raise Refused(400, f"{model_id!r} is no embedding model")
        return model

    def list_models(self, call: None) -> ListModelsResponse:
        return ListModelsResponse(data=list(self.models.values()))

    def retrieve_model(self, call: None, model_id: str) -> Model | None:
        return self.models.get(model_id)

    def register_model(self, call: None, body: RegisterModelRequest) -> Model:
        metadata, kind = body.metadata or {}, body.model_type or "llm"
        dimension = metadata.get("embedding_dimension")
        if kind == "embedding" and (type(dimension) is not int or not 1 <= dimension <= 4096):
            raise Refused(400, "metadata.embedding_dimension: an embedding model needs its dimension, 1 to 4096")
        model = Model(
            identifier=_named(body.model_id),
            provider_resource_id=body.provider_model_id or body.model_id,
            provider_id=provider(body.provider_id),
            metadata=metadata,
            model_type=kind,
        )
        return self.models.put(model)

    def unregister_model(self, call: None, model_id: str) -> None:
        self.models.taken(model_id)

    def list_shields(self, call: None) -> ListShieldsResponse:
        return ListShieldsResponse(data=list(self.shields.values()))

    def retrieve_shield(self, call: None, identifier: str) -> Shield | None:
        return self.shields.get(identifier)

    def register_shield(self, call: None, body: RegisterShieldRequest) -> Shield:
        shield = Shield(
            identifier=_named(body.shield_id),
            provider_resource_id=body.provider_shield_id or body.shield_id,
            provider_id=provider(body.provider_id),
            params=body.params or {},
        )
        return self.shields.put(shield)

    def list_vector_dbs(self, call: None) -> ListVectorDBsResponse:
        return ListVectorDBsResponse(data=list(self.vector_dbs.values()))

    def retrieve_vector_db(self, call: None, vector_db_id: str) -> VectorDB | None:
        return self.vector_dbs.get(vector_db_id)

    def register_vector_db(self, call: None, body: RegisterVectorDbRequest) -> VectorDB:
        dimension = self.embedding_model(body.embedding_model).metadata["embedding_dimension"]
        if body.embedding_dimension not in (None, dimension):
            raise Refused(400, f"embedding_dimension: that of {body.embedding_model!r} is {dimension}")
        vector_db = VectorDB(
            identifier=_named(body.vector_db_id),
            provider_resource_id=body.provider_vector_db_id or body.vector_db_id,
            provider_id=provider(body.provider_id),
            embedding_model=body.embedding_model,
            embedding_dimension=dimension,
        )
        return self.vector_dbs.put(vector_db)

    def unregister_vector_db(self, call: None, vector_db_id: str) -> None:
        self.vector_dbs.taken(vector_db_id)

    def list_datasets(self, call: None) -> ListDatasetsResponse:
        return ListDatasetsResponse(data=list(self.datasets.values()))

    def retrieve_dataset(self, call: None, dataset_id: str) -> Dataset | None:
        return self.datasets.get(dataset_id)

    def register_dataset(self, call: None, body: RegisterDatasetRequest) -> None:
        dataset = Dataset(
            identifier=_named(body.dataset_id),
            provider_resource_id=body.provider_dataset_id or body.dataset_id,
            provider_id=provider(body.provider_id),
            dataset_schema=body.dataset_schema,
            url=body.url,
            metadata=body.metadata or {},
        )
        self.datasets.put(dataset)

    def unregister_dataset(self, call: None, dataset_id: str) -> None:
        self.datasets.taken(dataset_id)

    def list_scoring_functions(self, call: None) -> ListScoringFunctionsResponse:
        return ListScoringFunctionsResponse(data=list(self.scoring_functions.values()))

    def retrieve_scoring_function(self, call: None, scoring_fn_id: str) -> ScoringFn | None:
        return self.scoring_functions.get(scoring_fn_id)

    def register_scoring_function(self, call: None, body: RegisterScoringFunctionRequest) -> None:
        function = ScoringFn(
            identifier=_named(body.scoring_fn_id),
            provider_resource_id=body.provider_scoring_fn_id or body.scoring_fn_id,
            provider_id=provider(body.provider_id),
            description=body.description,
            metadata={},
            return_type=body.return_type,
            params=body.params,
        )
        self.scoring_functions.put(function)

    def list_eval_tasks(self, call: None) -> ListEvalTasksResponse:
        return ListEvalTasksResponse(data=list(self.eval_tasks.values()))

    def retrieve_eval_task(self, call: None, eval_task_id: str) -> EvalTask | None:
        return self.eval_tasks.get(eval_task_id)

    def register_eval_task(self, call: None, body: RegisterEvalTaskRequest) -> None:
        task = EvalTask(
            identifier=_named(body.eval_task_id),
            provider_resource_id=body.provider_eval_task_id or body.eval_task_id,
            provider_id=provider(body.provider_id),
            dataset_id=body.dataset_id,
            scoring_functions=body.scoring_functions,
            metadata=body.metadata or {},
        )
        self.eval_tasks.put(task)


def _named(identifier: str) -> str:
    if not identifier:
        raise Refused(400, "an id is empty")
    return identifier
