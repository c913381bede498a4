"""Mathematics on tensors: torch and einops only."""
