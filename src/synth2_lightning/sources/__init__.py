"""Photos with captions, read where they lie."""
