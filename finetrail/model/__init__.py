"""The base model: which files it needs, and whether they are safe and whole."""
