"""The inference engine in a process of its own: `server.py` on its side, `remote.py` on the side of those who call."""
