"""Caption sets larger than a machine, by Ray Data."""
