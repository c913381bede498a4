"""What is trained or run."""
