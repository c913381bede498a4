"""Reports on caption sets, selection, deduplication, and scores of predictions."""
