"""Frozen image encoders and image tokenizers, and text encoders."""
