"""Which captions may stay: refusals, length, language, repetition, duplicates, overlap with evaluation captions."""
