"""``synth2 caption``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from synth2_lightning.cli.errors import hide_noise


def caption(
    run: str,
    images: Sequence[str],
    *,
    out: Path | None = None,
    format: Literal["text", "jsonl", "csv"] | None = None,
    batch_size: int = 64,
    device: str | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    max_pixels: int = 178_956_970,
    allow_urls: bool = False,
    trust: Sequence[str] = (),
    from_hub: Sequence[str] = (),
) -> int:
    """Write captions of images with a trained captioner.

    The exit code is 0 if every image has its caption, 3 if some could not be read, 1 after an error.

    Args:
        run: Folder of a run (its best checkpoint is taken, else its last), a checkpoint, or an exported captioner.
        images: Files, folders (with all that is below), patterns, or addresses.
        out: File to append to; the same command resumes where it was stopped. Standard output by default.
        format: Of the output. By default the suffix of the file decides, else it is text.
        batch_size: Images that go through the model at a time.
        device: Such as cpu, cuda or cuda:1. By default the accelerator, if there is one.
        num_beams: Width of the beam search. By default that of the run.
        max_new_tokens: Most tokens of a caption. By default those of the run.
        max_pixels: Refuse larger images; the default is Pillow's limit.
        allow_urls: Fetch addresses by http and https.
        trust: Package of yours whose classes the checkpoint may name, such as a decoder.
        from_hub: Model on the Hugging Face Hub that may be fetched for the captioner.

    Raises:
        OSError: If the run or the images do not exist, or the file cannot be written.
        ValueError: If it is no captioner's run, or the file holds something else.

    Example:
        synth2 caption runs/version_0 holidays/ --out captions.jsonl
    """
    from synth2_lightning.shards.image_captions import format_of
    from synth2_lightning.sources.image_files import find_images

    found = find_images(images, allow_urls)  # before the heavy imports, so that a mistake is told at once
    from synth2_lightning.export.caption_images import caption_images
    from synth2_lightning.export.captioner import load_captioner

    hide_noise()
    captioner = load_captioner(run, device, num_beams, max_new_tokens, trust=trust, from_hub=from_hub)
    return caption_images(found, captioner, out, format or format_of(out or Path()), batch_size, max_pixels)
