"""The embedded world: drawn images with five captions each."""
