"""Caption filters: refusals, length, language, repetition, duplicates, overlap with evaluation captions."""
