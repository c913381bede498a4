"""Built-in synthetic dataset: generated images of colored shapes with five captions each."""
