"""Metrics of captions, image tokens and caption sets."""
