"""Which models stay in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from backends.errors import CorruptModel, Overloaded, Unavailable
from backends.onnx.residency import Residency


class Model:
    def __init__(self) -> None:
        self.busy = False
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def forty() -> int:
    return 40


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def residency(clock: Clock) -> Iterator[Residency]:
    residency = Residency(100, clock=clock)
    yield residency
    residency.close()


def used(residency: Residency, clock: Clock, name: str, size: int = 40) -> Model:
    clock.now += 1
    with residency.use(name, lambda: size, Model) as model:
        return model


def test_a_model_is_loaded_once_and_stays(residency: Residency, clock: Clock) -> None:
    first = used(residency, clock, "a")
    assert used(residency, clock, "a") is first
    assert residency.loaded() == {"a": first}


def test_the_least_recently_used_model_makes_room(residency: Residency, clock: Clock) -> None:
    a, b = used(residency, clock, "a"), used(residency, clock, "b")
    used(residency, clock, "a")
    used(residency, clock, "c")
    assert set(residency.loaded()) == {"a", "c"}
    assert (a.closed, b.closed) == (0, 1)


def test_no_more_is_given_up_than_is_needed(residency: Residency, clock: Clock) -> None:
    for name in "abc":
        used(residency, clock, name, 30)
    used(residency, clock, "d", 35)
    assert set(residency.loaded()) == {"b", "c", "d"}


@pytest.mark.parametrize("how", ["held", "busy"])
def test_what_is_in_use_is_never_given_up(residency: Residency, clock: Clock, how: str) -> None:
    with residency.use("a", forty, Model) as a, residency.use("b", forty, Model) as b:
        if how == "held":
            with pytest.raises(Overloaded, match="no room for c"):
                used(residency, clock, "c")
            with pytest.raises(Overloaded, match="in use"):
                residency.unload("a")
    a.busy = b.busy = how == "busy"
    if how == "busy":
        with pytest.raises(Overloaded):
            used(residency, clock, "c")
        b.busy = False
    used(residency, clock, "c")
    assert a.closed == (how == "held")


def test_a_model_larger_than_the_budget_is_refused_with_both_numbers(residency: Residency, clock: Clock) -> None:
    with pytest.raises(Unavailable, match=r"takes 300 MB, engine.memory_mb is 200"):
        used(Residency(200_000_000, clock=clock), clock, "a", 300_000_000)


def test_a_model_that_cannot_be_loaded_fails_all_who_wait_for_it_and_nobody_else(residency: Residency) -> None:
    begun, go = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def broken() -> Model:
        begun.set()
        assert go.wait(30)
        raise CorruptModel("model.onnx", "is half there")

    def ask() -> None:
        try:
            with residency.use("bad", forty, broken):
                raise AssertionError("it was loaded")
        except CorruptModel as error:
            errors.append(error)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    assert begun.wait(30)
    with residency.use("good", forty, Model) as good:  # is not held up by the other's loading
        assert not good.closed
    go.set()
    for asker in askers:
        asker.join(30)
    assert len(errors) == 3
    with residency.use("bad", forty, Model):  # mended meanwhile
        assert "bad" in residency.loaded()


def test_an_idle_model_is_given_up_after_its_time(clock: Clock) -> None:
    residency = Residency(keep_alive_s=3600, clock=clock)
    a, b = used(residency, clock, "a"), used(residency, clock, "b")
    b.busy = True
    clock.now += 3000
    residency.expire()
    assert set(residency.loaded()) == {"a", "b"}
    clock.now += 1000
    residency.expire()
    assert (a.closed, b.closed) == (1, 0)
    residency.close()
    assert b.closed == 1


def test_unloading_and_closing(residency: Residency, clock: Clock) -> None:
    a = used(residency, clock, "a")
    assert residency.unload("a")
    assert not residency.unload("a")
    assert a.closed == 1
    b = used(residency, clock, "b")
    residency.close()
    assert b.closed == 1
    with pytest.raises(Unavailable):
        used(residency, clock, "c")


def test_places_tell_who_uses_a_model_and_for_how_long_nobody_has(residency: Residency, clock: Clock) -> None:
    model = used(residency, clock, "a")
    clock.now += 3
    with residency.use("b", lambda: 20, Model):
        places = residency.residences()
        assert (places["a"].model, places["a"].size, places["a"].users, places["a"].idle_s) == (model, 40, 0, 3.0)
        assert (places["b"].size, places["b"].users, places["b"].idle_s) == (20, 1, None)
    model.busy = True
    assert residency.residences()["a"].idle_s is None


def test_a_long_answer_counts_as_use(clock: Clock) -> None:
    residency = Residency(keep_alive_s=1000, clock=clock)  # its own thread finds nothing to do
    model = used(residency, clock, "a")
    model.busy = True
    clock.now += 5000
    residency.expire()
    model.busy = False
    residency.expire()
    assert residency.loaded() == {"a": model}, "it was busy a moment ago"
    clock.now += 1001
    residency.expire()
    assert residency.loaded() == {}
    residency.close()


def built(residency: Residency, clock: Clock, name: str, base: str, size: int = 10) -> Model:
    def load() -> Model:
        used(residency, clock, base)
        return Model()

    with residency.use(name, lambda: size, load, on=lambda: base) as model:
        return model


def test_a_base_counts_once_for_all_that_are_built_on_it(residency: Residency, clock: Clock) -> None:
    for name in ("x", "y", "z"):
        built(residency, clock, name, "base")
    assert set(residency.loaded()) == {"base", "x", "y", "z"}
    used(residency, clock, "other", 30)
    assert set(residency.loaded()) == {"base", "x", "y", "z", "other"}


def test_a_base_goes_only_with_all_that_are_built_on_it(residency: Residency, clock: Clock) -> None:
    x, y = (built(residency, clock, name, "base") for name in ("x", "y"))
    base = residency.loaded()["base"]
    y.busy = True
    with pytest.raises(Overloaded, match="in use"):
        residency.unload("base")
    with pytest.raises(Overloaded, match="no room"):
        used(residency, clock, "large", 90)
    assert (x.closed, y.closed) == (0, 0)
    y.busy = False
    assert residency.unload("base")
    assert residency.loaded() == {}
    assert isinstance(base, Model)
    assert (x.closed, y.closed, base.closed) == (1, 1, 1)


def test_use_of_what_is_built_on_a_base_is_use_of_the_base(residency: Residency, clock: Clock) -> None:
    built(residency, clock, "x", "base")
    used(residency, clock, "a", 30)
    clock.now += 1
    built(residency, clock, "x", "base")
    used(residency, clock, "b", 40)
    assert set(residency.loaded()) == {"base", "x", "b"}


def test_a_base_expires_after_what_is_built_on_it(clock: Clock) -> None:
    residency = Residency(keep_alive_s=5, clock=clock)
    try:
        built(residency, clock, "x", "base")
        clock.now += 4
        built(residency, clock, "x", "base")
        clock.now += 4
        residency.expire()
        assert set(residency.loaded()) == {"x", "base"}
        clock.now += 4
        residency.expire()
        residency.expire()
        assert residency.loaded() == {}
    finally:
        residency.close()
