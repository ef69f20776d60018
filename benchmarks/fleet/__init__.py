"""Ten thousand sidecars and one server in virtual time, with the real schedule: `python -m benchmarks.fleet`."""
