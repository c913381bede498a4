"""Concepts of captions: class names, their sampling, and prompt templates."""
