"""Jobs on a Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.config import BackendSettings, JobSettings
from backends.context import CallContext
from backends.errors import Misconfigured
from backends.jobs.ray_executions import RayCluster, check_shared
from backends.jobs.records import Job
from backends.jobs.runner import Runner
from backends.store import SqlJobStore, open_database
from tests.backends.jobs.test_runner import wait_for
from tests.backends.postgres import PostgresServer

CONTEXT = CallContext(request_id="test")
WORK = """
import json, os, sys, time
from pathlib import Path
from backends.store import SqlJobStore, open_database
store = SqlJobStore(open_database(os.environ["JOBS_DATABASE"]))
claimant = sys.argv[1]
job = store.claimed(claimant)
store.progress(claimant, {"raylet": int(os.environ["RAY_RAYLET_PID"])})
gate = Path(os.environ["JOBS_GATE"])
while not gate.exists():
    time.sleep(0.02)
store.finish(claimant, result={"attempt": job.attempt})
"""


def test_state_that_other_machines_do_not_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="PostgreSQL"):
        check_shared(BackendSettings(data_dir=tmp_path, jobs=JobSettings(runner="ray")))
    apart = BackendSettings(data_dir=tmp_path, database_url="postgresql://h/db", jobs=JobSettings(runner="ray"))
    with pytest.raises(Misconfigured, match="shared_directories"):
        check_shared(apart)
    shared = JobSettings(runner="ray", shared_directories=True)
    check_shared(apart.model_copy(update={"jobs": shared}))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without room for jobs and two nodes with room for one each."""
    utils: Any = pytest.importorskip("ray.cluster_utils", reason="needs ray: the tox env `ray` has it")
    started = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield started
    started.shutdown()


def raylet_of(node: Any) -> int:
    """The process of a node that starts its workers."""
    (info,) = node.all_processes["raylet"]
    return int(info.process.pid)


@pytest.mark.ray
def test_jobs_land_on_both_nodes_and_that_of_a_killed_node_is_taken_over(
    cluster: Any, postgres: PostgresServer, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    gate = tmp_path / "gate"
    with postgres.database() as url:
        store = SqlJobStore(open_database(url))
        environ = {"JOBS_DATABASE": url, "JOBS_GATE": str(gate), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = (sys.executable, "-c", WORK)
        ray = RayCluster(cluster.address, command, environ, "ONNXSTACK_PARENT_PID")
        stop = threading.Event()
        thread = threading.Thread(target=Runner(store, ray.start, {"eval": 3}).run, args=(stop,))
        thread.start()
        try:
            for name in ("a", "b"):
                store.add(CONTEXT, Job("eval", name, "task", "", "key", {}, datetime.now(UTC)))
            wait_for(lambda: all(job.progress for job in store.list(CONTEXT, "eval")))
            before = {job.job_id: job.progress["raylet"] for job in store.list(CONTEXT, "eval")}
            assert set(before.values()) == {raylet_of(node) for node in nodes}
            killed = next(node for node in nodes if raylet_of(node) == before["a"])
            cluster.remove_node(killed, allow_graceful=False)
            wait_for(lambda: {job.job_id: job.attempt for job in store.list(CONTEXT, "eval")} == {"a": 2, "b": 1})
            gate.write_text("")
            wait_for(lambda: all(job.state == "completed" for job in store.list(CONTEXT, "eval")))
            results = {job.job_id: job.result for job in store.list(CONTEXT, "eval")}
            assert results == {"a": {"attempt": 2}, "b": {"attempt": 1}}, json.dumps(results)
        finally:
            gate.write_text("")
            stop.set()
            thread.join()
            ray.close()
            store.close()
