"""A search: the fields and values to try, its trials, the folders in which they run, and the final report."""
