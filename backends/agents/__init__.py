"""Agents: a model with instructions, tools and shields, and the sessions in which it is talked to.

`turn_loop.py` is the algorithm; `service.py` is what handlers call.
"""
