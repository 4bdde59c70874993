"""Contract tests for any implementation of the Llama Stack v1 API at a URL."""

__version__ = "0.1.0"
