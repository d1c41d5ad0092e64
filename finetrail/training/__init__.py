"""Turns features and a base model into a trained model."""
