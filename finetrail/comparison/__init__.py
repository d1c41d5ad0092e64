"""What compares finished runs: used by `python -m finetrail.compare`, by no stage."""
