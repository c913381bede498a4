"""What captions are asked for: class names, how they are drawn, and the prompts that ask."""
