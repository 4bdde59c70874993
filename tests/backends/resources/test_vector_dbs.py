from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from backends.context import CallContext
from backends.errors import BadRequest, Conflict, Forbidden, NotFound, StorageFull, Unavailable, UnknownReference
from backends.ports import ResourceStore, VectorChunk, VectorIndex
from backends.resources import VectorDbs
from backends.stack import Backends
from generated.models import RegisterModelRequest, RegisterVectorDbRequest, VectorDB
from tests.backends.lance.vector_suite import tables_of


def request(vector_db_id: str = "db", model: str = "embed", **members: object) -> RegisterVectorDbRequest:
    return RegisterVectorDbRequest.model_validate({"vector_db_id": vector_db_id, "embedding_model": model, **members})


def insert_one(stack: Backends, context: CallContext, vector_db_id: str = "db") -> None:
    db = stack.vector_dbs.open(context, vector_db_id)
    vector = np.zeros((1, db.dimension), np.float32)
    vector[0, 0] = 1
    stack.vector_dbs.insert(context, db, [VectorChunk("text", {})], vector)


def table_of(store: ResourceStore, context: CallContext, vector_db_id: str = "db") -> str:
    row = store.get(context, "vector_db", vector_db_id)
    assert row is not None
    return row.storage_name


@pytest.fixture(autouse=True)
def _models(embedding_model: str, stack: Backends, context: CallContext) -> None:
    stack.models.register(context, RegisterModelRequest(model_id="embed-2", model_type="embedding"))
    stack.models.register(context, RegisterModelRequest(model_id="talk", model_type="llm"))


def test_a_registered_db_has_its_models_dimension_and_an_empty_table(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    registered = stack.vector_dbs.register(context, request("my/db::1"))
    assert registered == VectorDB(
        identifier="my/db::1",
        provider_id="memory",
        provider_resource_id="my/db::1",
        embedding_model="embed",
        embedding_dimension=384,
    )
    assert stack.vector_dbs.get(context, "my/db::1") == registered
    assert stack.vector_dbs.list(context) == [registered]
    table = table_of(stack.store, context, "my/db::1")
    assert uuid.UUID(table.removeprefix("vector_db_"))
    assert tables_of(index) == [table]
    assert index.count(context, table) == 0


def test_an_open_db_has_all_that_inserting_needs(stack: Backends, context: CallContext, index: VectorIndex) -> None:
    stack.vector_dbs.register(context, request())
    db = stack.vector_dbs.open(context, "db")
    assert (db.index, db.table, db.model, db.dimension) == (index, table_of(stack.store, context), "embed", 384)
    insert_one(stack, context)
    assert index.count(context, db.table) == 1


def test_a_dimension_that_is_not_the_models_is_refused_with_both(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request("right", embedding_dimension=384))
    with pytest.raises(BadRequest, match="embedding_dimension is 99, the vectors of model 'embed' have 384") as refused:
        stack.vector_dbs.register(context, request("wrong", embedding_dimension=99))
    assert refused.value.where == "/embedding_dimension"
    assert len(tables_of(index)) == 1


@pytest.mark.parametrize("model", ["talk", "nobody"])
def test_an_embedding_model_that_is_none_is_refused(stack: Backends, context: CallContext, model: str) -> None:
    with pytest.raises(BadRequest, match=f"model '{model}'") as refused:
        stack.vector_dbs.register(context, request(model=model))
    assert refused.value.where == "/embedding_model"


def test_the_same_again_keeps_table_and_chunks(stack: Backends, context: CallContext, index: VectorIndex) -> None:
    stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    table = table_of(stack.store, context)
    stack.vector_dbs.register(context, request())
    assert table_of(stack.store, context) == table
    assert index.count(context, table) == 1


def test_what_does_not_touch_the_vectors_may_change_beside_chunks(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    changed = stack.vector_dbs.register(context, request(provider_vector_db_id="own"))
    assert changed.provider_resource_id == "own"
    assert stack.vector_dbs.get(context, "db") == changed
    assert index.count(context, table_of(stack.store, context)) == 1


def test_an_empty_db_takes_another_embedding_model(stack: Backends, context: CallContext, index: VectorIndex) -> None:
    stack.vector_dbs.register(context, request())
    old = table_of(stack.store, context)
    stack.vector_dbs.register(context, request(model="embed-2"))
    assert stack.vector_dbs.open(context, "db").model == "embed-2"
    new = table_of(stack.store, context)
    assert new != old
    assert tables_of(index) == [new]
    assert list(stack.store.unclaimed()) == []


def test_a_db_with_chunks_keeps_its_embedding_model(stack: Backends, context: CallContext, index: VectorIndex) -> None:
    before = stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    with pytest.raises(Conflict, match="'db' holds 1 chunks of embedding model 'embed'"):
        stack.vector_dbs.register(context, request(model="embed-2"))
    assert stack.vector_dbs.get(context, "db") == before
    assert tables_of(index) == [table_of(stack.store, context)]


def test_unregistering_removes_the_data(stack: Backends, context: CallContext, index: VectorIndex) -> None:
    stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    stack.vector_dbs.unregister(context, "db")
    assert stack.vector_dbs.get(context, "db") is None
    assert tables_of(index) == []
    assert list(stack.store.unclaimed()) == []
    with pytest.raises(NotFound, match="vector db 'db' not found"):
        stack.vector_dbs.unregister(context, "db")
    with pytest.raises(UnknownReference, match="vector db 'db' not found; registered: none"):
        stack.vector_dbs.open(context, "db")


def test_a_caller_who_goes_away_while_unregistering_leaves_no_table(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.vector_dbs.register(context, request())
    original = stack.store.put

    def put_and_go(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        context.cancellation.cancel()

    with monkeypatch.context() as patched:
        patched.setattr(stack.store, "put", put_and_go)
        stack.vector_dbs.unregister(context, "db")
    assert tables_of(index) == []


def test_a_db_whose_embedding_model_is_gone_or_has_another_size_says_so(stack: Backends, context: CallContext) -> None:
    stack.vector_dbs.register(context, request())
    stack.models.unregister(context, "embed")
    with pytest.raises(UnknownReference, match="model 'embed' not found"):
        stack.vector_dbs.open(context, "db")
    stack.models.register(context, RegisterModelRequest(model_id="embed", model_type="embedding"))
    row = stack.store.get(context, "model", "embed")
    assert row is not None
    stack.store.put(context, replace(row, body={**row.body, "metadata": {"embedding_dimension": 99}}))
    with pytest.raises(
        Conflict, match=r"'db' holds vectors of 384 dimensions, its embedding model 'embed' now makes 99"
    ):
        stack.vector_dbs.open(context, "db")


def embed_is(stack: Backends, context: CallContext, provider_model_id: str) -> None:
    """Let the name "embed" stand for this model of the provider."""
    stack.models.register(
        context,
        RegisterModelRequest(model_id="embed", model_type="embedding", provider_model_id=provider_model_id),
    )


def test_a_db_with_chunks_is_not_opened_for_another_embedding_model_of_the_same_size_and_name(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    embed_is(stack, context, "other")
    with pytest.raises(Conflict, match=r"384 dimensions, 'embed' of provider.*384 dimensions, 'other' of") as refused:
        stack.vector_dbs.open(context, "db", where="/here")
    assert refused.value.where == "/here"
    with pytest.raises(Conflict, match="unregister it before"):
        stack.vector_dbs.register(context, request())
    embed_is(stack, context, "embed")
    assert index.count(context, stack.vector_dbs.open(context, "db").table) == 1


def test_an_empty_db_follows_its_embedding_model_into_a_new_table(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    registered = stack.vector_dbs.register(context, request())
    old = table_of(stack.store, context)
    embed_is(stack, context, "other")
    db = stack.vector_dbs.open(context, "db")
    assert (db.model, db.table) == ("other", table_of(stack.store, context))
    assert db.table != old
    assert list(stack.store.unclaimed()) == []
    assert stack.vector_dbs.get(context, "db") == registered
    insert_one(stack, context)
    embed_is(stack, context, "embed")
    with pytest.raises(Conflict, match="'db' holds 1 chunks"):
        stack.vector_dbs.open(context, "db")


def test_a_shared_db_does_not_follow_the_embedding_model_of_one_key(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request())
    before = table_of(stack.store, context)
    alice = CallContext(request_id="a", owner="alice")
    embed_is(stack, alice, "hers")
    with pytest.raises(Conflict, match="'db' is shared by all keys"):
        stack.vector_dbs.open(alice, "db")
    assert stack.vector_dbs.open(context, "db").table == before


def test_a_row_that_does_not_say_which_model_made_its_vectors_is_opened_as_it_is(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    row = stack.store.get(context, "vector_db", "db")
    assert row is not None
    body = {"embedding_model": "embed", "embedding_dimension": 384}
    assert row.body.items() > body.items()
    stack.store.put(context, replace(row, body=body))
    embed_is(stack, context, "other")
    assert stack.vector_dbs.open(context, "db").model == "other"
    stack.vector_dbs.register(context, request())
    embed_is(stack, context, "embed")
    with pytest.raises(Conflict, match="'db' holds 1 chunks"):
        stack.vector_dbs.open(context, "db")


@pytest.mark.parametrize("key", ["", "alice"])
def test_an_insert_into_a_db_that_is_about_to_be_replaced_keeps_it(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    before = stack.vector_dbs.register(context, request())
    caller = replace(context, owner=key)
    counted, original = itertools.count(), index.count

    def count_then_insert(*arguments: Any) -> int:
        found = original(*arguments)
        if next(counted) == 1:  # the announcement is out: nobody looks into the table after this
            insert_one(stack, caller)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(index, "count", count_then_insert)
        with pytest.raises(Conflict, match="'db' holds 1 chunks"):
            stack.vector_dbs.register(context, request(model="embed-2"))
    assert stack.vector_dbs.get(context, "db") == before
    assert index.count(context, table_of(stack.store, context)) == 1
    assert tables_of(index) == [table_of(stack.store, context)]


def test_an_insert_between_the_first_look_and_the_announcement_keeps_the_db(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stack.vector_dbs.register(context, request())
    original = index.create

    def create_and_insert(*arguments: Any) -> None:
        original(*arguments)
        insert_one(stack, context)

    with monkeypatch.context() as patched:
        patched.setattr(index, "create", create_and_insert)
        with pytest.raises(Conflict, match="'db' holds 1 chunks"):
            stack.vector_dbs.register(context, request(model="embed-2"))
    assert stack.vector_dbs.get(context, "db") == before
    assert index.count(context, table_of(stack.store, context)) == 1
    assert tables_of(index) == [table_of(stack.store, context)]


@pytest.mark.parametrize(("change", "fate"), [("replace", "replaced"), ("remove", "removed")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_insert_into_a_table_that_is_given_up_meanwhile_is_not_acknowledged(
    stack: Backends,
    context: CallContext,
    index: VectorIndex,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    fate: str,
    when: str,
) -> None:
    stack.vector_dbs.register(context, request())
    original = index.insert

    def give_up() -> None:
        stack.vector_dbs.unregister(context, "db")
        if change == "replace":
            stack.vector_dbs.register(context, request())

    def insert(*arguments: Any) -> None:
        if when == "before":
            give_up()
        original(*arguments)
        if when == "after":
            give_up()

    with monkeypatch.context() as patched:
        patched.setattr(index, "insert", insert)
        with pytest.raises(Conflict, match=f"'db' was {fate} while inserting; send again"):
            insert_one(stack, context)


def test_a_replacement_that_was_killed_half_way_does_not_stop_inserts(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.vector_dbs.register(context, request())
    counted, original = itertools.count(), index.count

    def die(*arguments: Any) -> int:
        if next(counted) == 1:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(index, "count", die)
        with pytest.raises(Killed):
            stack.vector_dbs.register(context, request(model="embed-2"))
    insert_one(stack, context)
    insert_one(stack, context)
    assert index.count(context, table_of(stack.store, context)) == 2


def test_many_that_register_the_same_db_at_once_leave_one_table(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    with ThreadPoolExecutor(8) as pool:
        registered = list(pool.map(lambda _: stack.vector_dbs.register(context, request()), range(16)))
    assert set(map(repr, registered)) == {repr(stack.vector_dbs.get(context, "db"))}
    assert tables_of(index) == [table_of(stack.store, context)]
    insert_one(stack, context)


def test_registering_and_unregistering_at_once_leave_no_table_without_a_db(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    def flip(number: int) -> None:
        if number % 2:
            stack.vector_dbs.register(context, request())
            return
        try:
            stack.vector_dbs.unregister(context, "db")
        except NotFound:
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(flip, range(40)))
    left = [table_of(stack.store, context)] if stack.vector_dbs.get(context, "db") else []
    assert tables_of(index) == left


class Killed(BaseException):
    """Stands for the process ending right there."""


@pytest.mark.parametrize("place", ["create", "put"])
def test_a_kill_while_registering_leaves_a_table_only_until_it_is_collected(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    stack.vector_dbs.register(context, request("other"))
    owner: object = index if place == "create" else stack.store
    original = getattr(owner, place)

    def die(*arguments: object, **named: object) -> None:
        if place == "create":
            original(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(type(owner), place, lambda self, *a, **k: die(*a, **k))
        with pytest.raises(Killed):
            stack.vector_dbs.register(context, request())
    assert len(tables_of(index)) == 2
    assert stack.vector_dbs.collect(context) == 0, "another process may be registering it right now"
    expire_reservations(stack, monkeypatch)
    assert stack.vector_dbs.collect(context) == 1
    assert tables_of(index) == [table_of(stack.store, context, "other")]
    assert stack.vector_dbs.collect(context) == 0


def test_a_kill_while_unregistering_leaves_a_table_only_until_the_next_start(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.vector_dbs.register(context, request())

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(type(index), "drop", die)
        with pytest.raises(Killed):
            stack.vector_dbs.unregister(context, "db")
    assert stack.vector_dbs.get(context, "db") is None
    assert len(tables_of(index)) == 1
    assert stack.vector_dbs.collect(context) == 1
    assert tables_of(index) == []


def test_a_table_that_cannot_be_made_leaves_nothing_registered(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(type(index), "create", full)
        with pytest.raises(StorageFull):
            stack.vector_dbs.register(context, request())
    assert stack.vector_dbs.list(context) == []
    stack.vector_dbs.register(context, request())
    assert tables_of(index) == [table_of(stack.store, context)]


def test_a_commit_whose_answer_got_lost_keeps_its_table(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = stack.store.put

    def lose_the_answer(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        raise Unavailable("the connection broke after the commit")

    with monkeypatch.context() as patched:
        patched.setattr(stack.store, "put", lose_the_answer)
        with pytest.raises(Unavailable):
            stack.vector_dbs.register(context, request())
    stack.vector_dbs.register(context, request())
    insert_one(stack, context)
    expire_reservations(stack, monkeypatch)
    assert stack.vector_dbs.collect(context) == 0
    assert index.count(context, table_of(stack.store, context)) == 1


def test_tables_that_sql_never_named_are_left_alone(
    stack: Backends, context: CallContext, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.create(context, "vector_db_of_another_server", 8)
    expire_reservations(stack, monkeypatch)
    assert stack.vector_dbs.collect(context) == 0
    assert tables_of(index) == ["vector_db_of_another_server"]


def test_a_key_that_registers_what_is_shared_gets_a_table_of_its_own(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request())
    alice = CallContext(request_id="a", owner="alice")
    stack.vector_dbs.register(alice, request(provider_vector_db_id="hers"))
    insert_one(stack, alice)
    assert index.count(context, table_of(stack.store, context)) == 0
    assert index.count(context, table_of(stack.store, alice)) == 1


def test_a_db_of_one_key_that_hides_a_shared_one_leaves_its_table(
    stack: Backends, context: CallContext, index: VectorIndex
) -> None:
    stack.vector_dbs.register(context, request())
    alice = CallContext(request_id="a", owner="alice")
    stack.vector_dbs.register(alice, request(model="embed-2"))
    shared, hers = table_of(stack.store, context), table_of(stack.store, alice)
    assert sorted(tables_of(index)) == sorted({shared, hers})
    stack.vector_dbs.unregister(alice, "db")
    assert tables_of(index) == [shared]
    with pytest.raises(Forbidden, match="'db' is shared by all keys"):
        stack.vector_dbs.unregister(alice, "db")
    assert tables_of(index) == [shared]
    assert stack.vector_dbs.get(alice, "db") == stack.vector_dbs.get(context, "db")


def test_ids_of_tables_can_be_given(stack: Backends, context: CallContext, index: VectorIndex) -> None:
    numbers = itertools.count(1)
    dbs = VectorDbs(stack.store, stack.providers, stack.models, new_id=lambda: uuid.UUID(int=next(numbers)))
    dbs.register(context, request())
    assert tables_of(index) == ["vector_db_00000000-0000-0000-0000-000000000001"]


def expire_reservations(stack: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two hours pass for the store."""
    monkeypatch.setattr(stack.store, "_now", lambda: datetime.now(UTC) + timedelta(hours=2))
