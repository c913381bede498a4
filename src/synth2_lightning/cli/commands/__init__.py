"""The commands that need no trainer: one function each, whose signature and docstring make the parser and its help."""
