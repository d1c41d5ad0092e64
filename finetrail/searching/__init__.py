"""A search: the fields and values to try, its trials, where each of them runs, and what is said at its end."""
