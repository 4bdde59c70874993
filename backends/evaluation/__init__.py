"""Evaluation: candidates answer the rows of a task, and scoring functions judge the answers."""
