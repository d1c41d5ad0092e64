"""Code for encoding that tasks share, without torch: tokenizers, windows, and arrays of runs."""
