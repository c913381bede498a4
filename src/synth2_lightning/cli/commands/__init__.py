"""Commands without a trainer: one function each, whose signature and docstring define the parser and its help."""
