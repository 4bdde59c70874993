"""`python -m onnxstack_conformance URL`."""

from onnxstack_conformance.cli import main

if __name__ == "__main__":
    main()
