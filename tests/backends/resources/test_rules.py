from __future__ import annotations

import pytest

from backends.errors import BadRequest, Conflict
from backends.resources.rules import check_id, id_or, name_some, retry_conflicts


@pytest.mark.parametrize(
    "identifier", ["a", "meta-llama/Llama-3.2-3B", "mcp::fs/x", "a b", "ü 模型 😀", "..", "x" * 512, "'\"%"]
)
def test_an_id_is_any_printable_text_of_up_to_512_characters(identifier: str) -> None:
    assert check_id(identifier, where="/model_id") == identifier


@pytest.mark.parametrize(
    ("identifier", "reason"),
    [
        ("", "must not be empty"),
        ("x" * 513, "at most 512 characters, this one has 513"),
        ("a\x00b", r"U\+0000 is at position 1"),
        ("a\n", r"U\+000A is at position 1"),
        ("\x7f", r"U\+007F is at position 0"),
        ("ab\x9f", r"U\+009F is at position 2"),
        ("\ud800", r"U\+D800 is at position 0"),
    ],
)
def test_an_id_that_cannot_be_kept_is_refused_with_its_place(identifier: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as refused:
        check_id(identifier, where="/model_id")
    assert refused.value.where == "/model_id"


def test_the_providers_own_id_is_the_id_unless_it_is_given() -> None:
    assert id_or(None, "x", where="/provider_model_id") == "x"
    assert id_or("y", "x", where="/provider_model_id") == "y"
    with pytest.raises(BadRequest):
        id_or("", "x", where="/provider_model_id")


def test_a_message_names_twenty_and_counts_the_rest() -> None:
    assert name_some([]) == "none"
    assert name_some(["a", "b"]) == "a, b"
    assert name_some([str(number) for number in range(25)]).endswith("18, 19 and 5 more")


def test_a_lost_race_is_run_again_and_a_bounded_number_of_times() -> None:
    attempts = 0

    def lose_twice() -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Conflict("changed meanwhile")
        return "done"

    assert retry_conflicts(lose_twice) == "done"
    assert attempts == 3

    def lose_always() -> None:
        nonlocal attempts
        attempts += 1
        raise Conflict("changed meanwhile")

    with pytest.raises(Conflict, match="meanwhile"):
        retry_conflicts(lose_always)
    assert attempts == 3 + 8


def test_a_conflict_with_a_place_in_the_request_is_final() -> None:
    attempts = 0

    def refuse() -> None:
        nonlocal attempts
        attempts += 1
        raise Conflict("taken", where="/toolgroup_id")

    with pytest.raises(Conflict, match="taken"):
        retry_conflicts(refuse)
    assert attempts == 1
