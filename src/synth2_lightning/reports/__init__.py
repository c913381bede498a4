"""Pages that compare caption sets, and balanced or narrow selections of them."""
