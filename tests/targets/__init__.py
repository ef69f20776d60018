"""Targets for the tests: real processes that do with signals what real programs do, and say so."""
