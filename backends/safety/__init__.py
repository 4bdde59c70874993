"""Shields: one module for each kind of provider of the safety API."""
