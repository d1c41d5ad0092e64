"""What people read of a run: metrics.json, the figures and the page."""
