"""What encoding shares between tasks, without torch: tokenizers, windows, and arrays of runs."""
