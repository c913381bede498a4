"""Data sources: images with captions, and sets of captions."""
