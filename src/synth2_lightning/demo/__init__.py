"""A page to try a trained captioner: what it says of an image, where it looked, what it learned that is alike."""
