"""Read and write files, local and remote: the lowest layer, without Lightning."""
