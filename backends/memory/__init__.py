"""Deterministic in-memory forms of the ports, for tests and for trying things out."""
