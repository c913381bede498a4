"""Local and remote file input and output, without Lightning."""
