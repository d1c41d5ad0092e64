"""Masked words of texts without labels: adapts an encoder to a domain (Gururangan et al. 2020)."""
