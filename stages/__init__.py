"""The stages of dvc.yaml, one script each; nothing imports them, and they never import each other."""
