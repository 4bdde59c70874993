"""HTTP: from a socket's request to a handler's arguments, and from its result to bytes. `app.create_app` puts it together."""
