"""What was acknowledged is there after a restart. Runs with `--restart-command` alone."""

from __future__ import annotations

import subprocess

from onnxstack_conformance.exchange import Broken
from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_agents import ASK, agent, session, turn, turn_of
from onnxstack_conformance.rules.test_datasets import ROWS
from onnxstack_conformance.rules.test_inference import user
from onnxstack_conformance.rules.test_vectors import TEXTS, filled, query
from onnxstack_conformance.stack import Stack, leave_out

SOURCE = "our interpretation: what was acknowledged is there"


def restart(stack: Stack, command: str) -> None:
    """Run the command and wait until the server answers.

    Raises:
        Broken: it does not, within the time of any answer.
    """
    subprocess.run(command, shell=True, check=True, timeout=300)  # noqa: S602 - the words of who runs the kit
    for _ in stack.until(stack.options.timeout_s):
        try:
            if stack.send("health").status == 200 and stack.send("list_models").status == 200:
                return
        except Broken:
            continue
    raise Broken("health", "the server does not answer after its restart")


@rule(
    "register_vector_db",
    "insert_chunks",
    "register_dataset",
    "append_rows",
    "create_session",
    "create_turn",
    source=SOURCE,
)
def test_what_was_made_outlives_a_restart(stack: Stack) -> None:
    """A vector database with its chunks, a dataset with an appended row and a session with its turn are there again."""
    if not stack.options.restart_command:
        leave_out("no --restart-command was given")
    database = filled(stack)
    dataset = stack.dataset(ROWS)
    row = {"input_query": "late", "expected_answer": "there"}
    stack.call("append_rows", body={"dataset_id": dataset, "rows": [row]})
    where = session(stack, agent(stack))
    made = turn_of(turn(stack, where, user(ASK)))
    restart(stack, stack.options.restart_command)
    answer, chunks, _ = query(stack, database, TEXTS["river"], max_chunks=10)
    answer.must(
        len(chunks) == len(TEXTS), f"{len(TEXTS)} chunks were inserted, after the restart there are {len(chunks)}"
    )
    rows = stack.call("get_rows_paginated", query={"dataset_id": dataset, "rows_in_page": -1})
    rows.must(rows.json()["rows"] == [*ROWS, row], "the rows are others after the restart")
    found = stack.call("retrieve_session", path=where)
    got = [one["turn_id"] for one in found.json()["turns"]]
    found.must(got == [made["turn_id"]], f"the session had the turn {made['turn_id']}, after the restart it has {got}")
