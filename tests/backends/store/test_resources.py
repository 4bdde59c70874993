"""The ResourceStore port, as its in-memory, SQLite and PostgreSQL forms keep it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from backends.context import CallContext
from backends.errors import Conflict
from backends.ports import Resource, ResourceStore
from tests.backends.store.conftest import Clock

ALICE = CallContext(request_id="a", owner="alice")
BOB = CallContext(request_id="b", owner="bob")


def model(identifier: str = "m", **changes: object) -> Resource:
    return replace(Resource("model", identifier, "onnx", identifier, {"model_type": "llm"}), **changes)  # type: ignore[arg-type]


def test_what_was_put_is_read_back_as_it_was(store: ResourceStore, context: CallContext) -> None:
    body = {"int": 2**60, "float": 0.1, "null": None, "list": [1, "zwei", {"ü": "\u0000 \ud83d \U0001f600"}], "": {}}
    resource = Resource("dataset", "a/b::c ü 'x\" %", "p", "q", body)
    store.put(context, resource)
    assert store.get(context, "dataset", resource.identifier) == resource


def test_nothing_is_read_where_nothing_was_put(store: ResourceStore, context: CallContext) -> None:
    store.put(context, model())
    assert store.get(context, "model", "M") is None
    assert store.get(context, "shield", "m") is None
    assert store.list(context, "shield") == []


def test_a_replaced_resource_keeps_its_place_and_has_its_new_content(
    store: ResourceStore, context: CallContext
) -> None:
    for name in "cab":
        store.put(context, model(name))
    store.put(context, model("a", provider_id="other", body={"new": 1}))
    assert [found.identifier for found in store.list(context, "model")] == ["c", "a", "b"]
    assert store.get(context, "model", "a") == model("a", provider_id="other", body={"new": 1})


def test_a_resource_registered_again_after_its_removal_comes_last(store: ResourceStore, context: CallContext) -> None:
    for name in "cab":
        store.put(context, model(name))
    store.put(context, remove=[("model", "c")])
    store.put(context, model("c"))
    assert [found.identifier for found in store.list(context, "model")] == ["a", "b", "c"]


def test_removing_what_is_not_there_changes_nothing(store: ResourceStore, context: CallContext) -> None:
    store.put(context, model())
    store.put(context, remove=[("model", "other"), ("shield", "m")])
    assert store.list(context, "model") == [model()]


def test_a_put_that_misses_an_expectation_changes_nothing_at_all(store: ResourceStore, context: CallContext) -> None:
    store.put(context, model("old"))
    for expected in (None, model("old", provider_id="other")):
        with pytest.raises(Conflict, match="'old' was changed"):
            store.put(context, model("new"), remove=[("model", "old")], expect={("model", "old"): expected})
    assert store.list(context, "model") == [model("old")]
    store.put(context, model("new"), remove=[("model", "old")], expect={("model", "old"): model("old")})
    assert store.list(context, "model") == [model("new")]


def test_of_many_that_expect_to_be_first_exactly_one_is(store: ResourceStore, context: CallContext) -> None:
    def claim(number: int) -> bool:
        try:
            store.put(context, model(provider_id=f"p{number}"), expect={("model", "m"): None})
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(claim, range(16)))
    assert won.count(True) == 1
    assert store.list(context, "model") == [model(provider_id=f"p{won.index(True)}")]


def test_no_update_is_lost_when_many_read_and_write_under_expectations(
    store: ResourceStore, context: CallContext
) -> None:
    store.put(context, model(body={"count": 0}))

    def increment(_: int) -> None:
        while True:
            current = store.get(context, "model", "m")
            assert current is not None
            try:
                changed = replace(current, body={"count": current.body["count"] + 1})
                store.put(context, changed, expect={("model", "m"): current})
            except Conflict:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(20)))
    found = store.get(context, "model", "m")
    assert found is not None
    assert found.body == {"count": 20}


def test_owners_do_not_see_each_other_and_all_see_what_is_shared(store: ResourceStore, context: CallContext) -> None:
    store.put(context, model("shared"))
    store.put(ALICE, model("hers"))
    assert store.get(BOB, "model", "hers") is None
    assert store.get(context, "model", "hers") is None
    assert [found.identifier for found in store.list(ALICE, "model")] == ["shared", "hers"]
    assert [found.identifier for found in store.list(BOB, "model")] == ["shared"]
    assert [found.identifier for found in store.list(context, "model")] == ["shared"]


def test_an_owners_resource_hides_the_shared_one_from_that_owner_alone(
    store: ResourceStore, context: CallContext
) -> None:
    store.put(context, model("m"), model("other"))
    store.put(ALICE, model("m", provider_id="hers"))
    assert store.get(ALICE, "model", "m") == model("m", provider_id="hers")
    assert store.get(BOB, "model", "m") == model("m")
    assert [found.provider_id for found in store.list(ALICE, "model")] == ["onnx", "hers"]
    store.put(ALICE, remove=[("model", "m"), ("model", "other")])
    assert store.list(ALICE, "model") == store.list(context, "model") == [model("m"), model("other")]


def test_owners_can_look_at_their_own_resources_alone(store: ResourceStore, context: CallContext) -> None:
    store.put(context, model("shared"))
    assert store.get(ALICE, "model", "shared", own=True) is None
    assert store.list(ALICE, "model", own=True) == []
    store.put(ALICE, model("shared", provider_id="hers"), expect={("model", "shared"): None})
    assert store.get(ALICE, "model", "shared", own=True) == model("shared", provider_id="hers")
    assert store.list(ALICE, "model", own=True) == [model("shared", provider_id="hers")]
    assert store.get(context, "model", "shared", own=True) == model("shared")
    assert store.list(context, "model", own=True) == [model("shared")]


def test_changing_a_value_that_was_read_or_put_changes_no_row(store: ResourceStore, context: CallContext) -> None:
    resource = model(body={"list": [1]})
    store.put(context, resource)
    resource.body["list"].append(2)
    found = store.get(context, "model", "m")
    assert found is not None
    found.body["list"].append(3)
    store.list(context, "model")[0].body["list"].append(4)
    assert store.get(context, "model", "m") == model(body={"list": [1]})


def test_reserved_storage_is_unclaimed_after_an_hour_unless_a_resource_took_it(
    store: ResourceStore, context: CallContext, clock: Clock
) -> None:
    store.reserve(context, "t1")
    store.reserve(context, "t2")
    store.put(context, model(storage_name="t1"))
    clock.pass_time(minutes=59)
    assert list(store.unclaimed()) == []
    clock.pass_time(minutes=1)
    assert list(store.unclaimed()) == ["t2"]
    store.forget("t2")
    assert list(store.unclaimed()) == []


def test_storage_of_a_removed_or_replaced_resource_is_unclaimed_at_once(
    store: ResourceStore, context: CallContext
) -> None:
    for name in ("t1", "t2", "t3"):
        store.reserve(context, name)
    store.put(context, model("a", storage_name="t1"), model("b", storage_name="t2"))
    store.put(context, model("a", storage_name="t3"), remove=[("model", "b")])
    assert sorted(store.unclaimed()) == ["t1", "t2"]


def test_storage_that_a_replacement_keeps_stays_claimed(store: ResourceStore, context: CallContext) -> None:
    store.reserve(context, "t1")
    store.put(context, model(storage_name="t1"))
    store.put(context, model(storage_name="t1", provider_id="other"))
    assert list(store.unclaimed()) == []


def test_storage_must_be_reserved_before_a_resource_may_name_it(store: ResourceStore, context: CallContext) -> None:
    with pytest.raises(Conflict, match="'t1' was not reserved"):
        store.put(context, model(storage_name="t1"))
    store.reserve(context, "t2")
    store.forget("t2")
    with pytest.raises(Conflict, match="'t2' was not reserved"):
        store.put(context, model(storage_name="t2"))
    assert store.list(context, "model") == []


def test_ping_answers(store: ResourceStore) -> None:
    store.ping()
