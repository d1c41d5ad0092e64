"""From source files to the canonical corpus: readers, tag schemes, splits."""
