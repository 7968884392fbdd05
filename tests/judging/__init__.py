"""Judging servers that users bring: check, grade, explore, compare."""
