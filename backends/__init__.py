"""What does the work: ports, adapters and their errors. Knows no HTTP."""
