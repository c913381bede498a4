"""synth2-lightning: visual-language models trained on synthetic captions and image embeddings (Synth²)."""

__version__ = "0.1.0"
