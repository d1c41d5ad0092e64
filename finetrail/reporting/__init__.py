"""What people read of a run: record.json, metrics.json, the figures and the page."""
