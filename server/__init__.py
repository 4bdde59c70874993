"""HTTP, process and command line: everything between a socket or a terminal and a handler."""

__version__ = "0.1.0"
