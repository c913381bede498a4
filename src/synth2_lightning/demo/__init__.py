"""A page to try a trained captioner: what it says of a picture, where it looked, what it learnt that is alike."""
