"""Words become image tokens."""
