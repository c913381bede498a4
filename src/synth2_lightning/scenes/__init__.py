"""The embedded world: drawn pictures with five captions each."""
