"""Ways in which servers are wrong, for the conformance kit to find: `FAULTS`, by name.

Each works around an application of this process (`faulty`) and in front of any server (`proxied`).
"""

from __future__ import annotations

from tests.conformance import faults_of_agents, faults_of_data, faults_of_inference, faults_of_resources, faults_of_wire
from tests.conformance.seeding import FAULTS
from tests.conformance.tampering import Answer, Ask, Fault, Request, Tamper, faulty, proxied

__all__ = ["FAULTS", "Answer", "Fault", "Request", "faulty", "missing", "proxied"]

# Importing these seeds their faults.
SEEDED_BY = (faults_of_wire, faults_of_inference, faults_of_agents, faults_of_resources, faults_of_data)


def missing(*operations: str, status: int = 501) -> Fault:
    """A server that has not got some operations, which is to be told apart from a fault.

    status: 501 or 404; any other makes it a fault.
    """

    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation in operations:
            return Answer.of({"detail": "Not Found" if status == 404 else "Not Implemented"}, status)
        return await ask(request)

    def apply() -> Tamper:
        return tamper

    return Fault("missing", operations, f"{', '.join(operations)}: not implemented ({status}).", apply)
