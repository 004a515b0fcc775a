"""Attacks on the program, as bounded, seeded and resumable programs: see `python -m benchmarks.torture --help`."""
