"""The code interpreter: Python that a model or a client wrote, in a sandbox of bubblewrap."""
