"""Writes what people read about a run: record.json, metrics.json, the figures and the page."""
