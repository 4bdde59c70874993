"""One module per API tag, one function per operationId: typed request in, typed response or iterator out."""
