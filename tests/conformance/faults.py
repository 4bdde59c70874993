"""Ways in which servers are wrong, for the conformance kit to find: `FAULTS`, by name.

Each works around an application of this process (`faulty`) and in front of any server (`proxied`).
"""

from __future__ import annotations

from tests.conformance import faults_of_agents, faults_of_data, faults_of_inference, faults_of_resources, faults_of_wire
from tests.conformance.seeding import FAULTS
from tests.conformance.tampering import Answer, Fault, Request, faulty, proxied

__all__ = ["FAULTS", "Answer", "Fault", "Request", "faulty", "proxied"]

# Importing these seeds their faults.
SEEDED_BY = (faults_of_wire, faults_of_inference, faults_of_agents, faults_of_resources, faults_of_data)
