"""Rows of datasets."""

from __future__ import annotations

from typing import Any

from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack

ROWS = [{"input_query": f'question {n}, with a "quote"', "expected_answer": f"answer {n}"} for n in range(7)]


def page(stack: Stack, name: str, size: int, token: str | None = None) -> tuple[Answer, list[Any], str | None]:
    answer = stack.call("get_rows_paginated", query={"dataset_id": name, "rows_in_page": size, "page_token": token})
    found = answer.json()
    answer.must(
        found["total_count"] in (len(found["rows"]), len(ROWS), len(ROWS) + 1),
        f"total_count is {found['total_count']}: neither the rows of the page nor those of the dataset",
    )
    return answer, found["rows"], found.get("next_page_token")


@rule("get_rows_paginated", source="contract: PaginatedRowsResult; client: pages until there is no token or no row")
def test_pages_have_every_row_once_and_in_order(stack: Stack) -> None:
    """Page after page by next_page_token gives the rows as they were registered, none lost and none twice."""
    name = stack.dataset(ROWS)
    rows: list[Any] = []
    token: str | None = None
    for _ in range(10):
        answer, found, token = page(stack, name, 3, token)
        answer.must(len(found) <= 3, f"three rows in a page were asked for, {len(found)} came")
        rows += found
        if not found or token is None:
            break
    answer.must(token is None or not found, "the pages do not end")
    answer.must(rows == ROWS, f"{len(ROWS)} rows were registered, the pages have {len(rows)}: {rows}")


@rule("get_rows_paginated", source="our interpretation: rows_in_page -1 is all, as clients ask for it")
def test_all_rows_come_at_once_for_minus_one(stack: Stack) -> None:
    """`rows_in_page` -1 gives all the rows."""
    answer, rows, _ = page(stack, stack.dataset(ROWS), -1)
    answer.must(rows == ROWS, f"{len(ROWS)} rows were registered, {len(rows)} came, or others")


@rule("get_rows_paginated", source="our interpretation: it is the caller's mistake")
def test_a_token_that_no_page_gave_is_refused(stack: Stack) -> None:
    """A page token of the caller's own gets a 4xx, and so does an unknown dataset."""
    query = {"dataset_id": stack.dataset(ROWS), "rows_in_page": 3, "page_token": "no token"}
    stack.refused("get_rows_paginated", "a page token that is none", query=query)
    query = {"dataset_id": f"conformance-{stack.run}-nobody", "rows_in_page": 3}
    stack.refused("get_rows_paginated", "an unknown dataset", query=query)


@rule("append_rows", source="our interpretation: what was acknowledged is there")
def test_appended_rows_come_last(stack: Stack) -> None:
    """After the answer to an append its row is the last of the dataset."""
    name = stack.dataset(ROWS)
    row = {"input_query": "one more", "expected_answer": "yes, Zoë"}
    answer = stack.call("append_rows", body={"dataset_id": name, "rows": [row]})
    _, rows, _ = page(stack, name, -1)
    answer.must(rows == [*ROWS, row], f"a row was appended to {len(ROWS)}, and the dataset has {rows[-2:]} at its end")


@rule("append_rows", source="our interpretation: it is the caller's mistake")
def test_appending_to_an_unknown_dataset_is_refused(stack: Stack) -> None:
    """A dataset that is not registered gets a 4xx."""
    body = {"dataset_id": f"conformance-{stack.run}-nobody", "rows": [{"a": "b"}]}
    stack.refused("append_rows", "an unknown dataset", body=body)
