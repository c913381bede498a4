"""What lies on disk between making data and training on it."""
