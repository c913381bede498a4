"""synth2-lightning: visual-language models trained on synthetic captions and image embeddings (Synth²)."""

TYPE_CHECKING = False  # nothing is imported here: `python -m` would search the current folder first
if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from synth2_lightning.captioner import Captioner

__version__ = "0.1.0"


def load(
    location: "str | Path",
    device: str | None = None,
    trust: "Collection[str]" = (),
    from_hub: "Collection[str]" = (),
) -> "Captioner":
    """Load a trained captioner, as :func:`synth2_lightning.captioner.load_captioner` does.

    Args:
        location: A checkpoint file, or the folder of a run or of an export.
        device: Where it computes; the accelerator that is there, or else the processor, if ``None``.
        trust: Names of top-level packages whose classes it may name, besides this one, torch, lightning and
            transformers.
        from_hub: Names of models on the Hugging Face Hub that may be fetched for it; none by default.

    Raises:
        FileNotFoundError: If nothing lies there, or a file of the run is missing.
        ValueError: If it is no captioner's checkpoint, does not say how its parts are made, or names classes of
            packages that are not trusted.

    Example:
        >>> load("gone.ckpt")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        FileNotFoundError: The trained captioner is not at 'gone.ckpt'
    """
    from synth2_lightning.captioner import load_captioner  # here, so that importing the package stays quick

    return load_captioner(location, device, trust=trust, from_hub=from_hub)
