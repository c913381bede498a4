"""Trained captioners: load, caption images, export to a folder or the Hugging Face Hub."""
