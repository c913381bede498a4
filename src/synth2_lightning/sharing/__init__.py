"""What an exported captioner is made of: its weights, its parts by name, its files and its card."""
