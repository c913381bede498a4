"""Pages that compare caption sets."""
