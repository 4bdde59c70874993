"""Scoring: functions that compare what was generated with what was expected, row by row and over all rows."""
