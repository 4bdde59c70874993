"""Opens and closes the application of a worker: `python -m tests.faults.cycles CYCLES DIRECTORY SERVING`.

After each cycle a line with what the process holds: megabytes, descriptors, threads. SERVING: 1 to have each answer a
chat with the real model, 0 to have it say that it is ready.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import httpx

from server.metrics_files import MetricsDirectory
from server.settings import load_settings
from tests.faults.wire import CHAT, chat
from tests.measures import held_by


async def answer(app: object, serving: bool) -> None:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://onnxstack", timeout=60) as client:
        found = await client.post(CHAT, json=chat("Hi", max_tokens=2)) if serving else await client.get("/v1/models")
        assert found.status_code == 200, found.text


def main() -> None:
    cycles, directory, serving = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"
    overrides = {
        "ONNXSTACK_DATA_DIR": str(directory),
        "ONNXSTACK_ENGINE__ADDRESS": "inproc",
        "ONNXSTACK_LOG__LEVEL": "error",
    }
    environ = {**os.environ, **overrides}
    settings = load_settings(environ=environ)
    metrics = MetricsDirectory(directory)
    metrics.announce()
    from server.main import build
    from server.prepare import prepare_state

    prepare_state(settings)
    for _ in range(cycles):
        app = build(settings)
        asyncio.run(answer(app, serving))
        app.close()
        del app
        gc.collect()
        held = held_by()
        print(held.resident_mb, held.descriptors, held.threads, flush=True)
    metrics.remove()


if __name__ == "__main__":
    main()
