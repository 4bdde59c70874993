"""Synthetic data: prompts to candidates, scored and filtered."""
