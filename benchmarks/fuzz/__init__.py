"""Feeds hostile bytes to what reads them, guided by coverage: `python -m benchmarks.fuzz TARGET SECONDS`."""
