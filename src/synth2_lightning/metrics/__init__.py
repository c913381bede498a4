"""Captions become numbers."""
