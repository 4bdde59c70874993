"""What lies in the sandbox beside the interpreter: programs that use the standard library and nothing else of ours."""
