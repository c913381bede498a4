"""Frozen networks: images become embeddings."""
