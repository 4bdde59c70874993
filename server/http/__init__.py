"""HTTP: from a socket's request to a handler's arguments, and from its result to bytes. Start at `app.py`."""
