"""Decoders: language models conditioned on visual tokens."""
