"""Datasets: their columns, the sources of their rows, and the conditions that choose among rows."""
