"""Code for evaluation that all tasks share."""
