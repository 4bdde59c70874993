"""pytest plugins of this suite; `tests/conftest.py` names them."""
