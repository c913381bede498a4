"""Photographs with captions, read where they lie."""
