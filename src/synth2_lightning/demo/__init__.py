"""Demo page of a trained captioner: caption, attention map of each word, and similar training pairs."""
