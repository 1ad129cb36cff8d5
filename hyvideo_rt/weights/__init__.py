"""Checkpoints: reading, checking, loading and converting them."""
