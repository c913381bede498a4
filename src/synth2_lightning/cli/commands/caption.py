"""``synth2 caption``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from synth2_lightning.cli.errors import hide_noise
from synth2_lightning.io.console import MessageConsole


def caption(
    run: str,
    images: Sequence[str],
    *,
    out: Path | None = None,
    format: Literal["text", "jsonl", "csv", "coco"] | None = None,
    annotations: str | None = None,
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
        run: Folder of a run (its best checkpoint, or else its last one), a checkpoint, or an exported captioner, also
            by its name on the Hugging Face Hub (OWNER/NAME or OWNER/NAME@REVISION).
        images: Files, folders (searched recursively), glob patterns, or URLs.
        out: File to append to; the same command resumes after an interruption. Standard output by default.
        format: Format of the output. By default from the suffix of the file (.jsonl, .csv, .json: coco), or text.
        annotations: COCO captions JSON whose file names give the images their ids, for the format coco.
        batch_size: Number of images per batch.
        device: Device, such as cpu, cuda or cuda:1. By default the accelerator, if there is one.
        num_beams: Number of beams. By default that of the run.
        max_new_tokens: Maximum number of tokens of a caption. By default that of the run.
        max_pixels: Maximum number of pixels of an image; the default is Pillow's limit.
        allow_urls: Download images from http and https URLs.
        trust: Your own package whose classes the checkpoint may name, such as a decoder.
        from_hub: Model on the Hugging Face Hub that may be downloaded for the captioner.

    Example:
        synth2 caption runs/version_0 holidays/ --out captions.jsonl
    """
    from synth2_lightning.export.hub import locate_export
    from synth2_lightning.reports.predictions import image_ids
    from synth2_lightning.shards.image_captions import format_of
    from synth2_lightning.sources.image_files import find_images

    # Before the slow imports:
    found = find_images(images, allow_urls)
    locate_export(run)
    if not found.names:
        missing = "".join(f" {name}: {reason}." for name, reason in found.missing)
        raise FileNotFoundError(f"There is no image to caption.{missing} Expected images, or folders with images.")
    written = format or format_of(out or Path())
    if written == "coco" and (annotations is None or out is None):
        raise ValueError(
            "COCO's results format has the ids of images, in a file; expected --annotations CAPTIONS.json, whose "
            "'images' have file_name and id, and --out FILE.json. To write names of images, use .jsonl or .csv."
        )
    ids = image_ids(found.names, annotations) if written == "coco" and annotations is not None else None
    count = "1 image" if len(found.names) == 1 else f"{len(found.names)} images"
    MessageConsole(stderr=True).print(f"Loading {run}, to caption {count}", soft_wrap=True)
    from synth2_lightning.export.caption_images import caption_images
    from synth2_lightning.export.captioner import load

    hide_noise()
    captioner = load(run, device, num_beams, max_new_tokens, trust=trust, from_hub=from_hub)
    return caption_images(found, captioner, out, written, batch_size, max_pixels, ids=ids)
