"""Telemetry: spans of this server, events of clients, where both are kept and how they are read."""
