"""Measures this program beside what a user would pick instead, in the same run: `python -m benchmarks`."""
