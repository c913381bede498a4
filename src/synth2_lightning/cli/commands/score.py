"""``synth2 score``."""

from pathlib import Path
from typing import Literal


def score(
    predictions: str,
    references: str,
    *,
    out: Path | None = None,
    missing: Literal["error", "empty", "skip"] = "error",
    unknown: Literal["error", "skip"] = "error",
    duplicates: Literal["error", "first", "last"] = "error",
    document_frequencies: str | None = None,
    meteor: bool = False,
    spice: bool = False,
    compare_java: bool = False,
    images: str | None = None,
    clip_model: str = "ViT-B-32-quickgelu",
    clip_pretrained: str = "openai",
) -> None:
    """Score the predictions of any captioner against human captions.

    Args:
        predictions: Output of `synth2 caption` (.jsonl, .csv), COCO results (.json), or a table (.jsonl, .csv, .tsv)
            with caption and one of image_id, key and image, a path that ends with a file name of the references. A file
            or an address, such as hf://datasets/OWNER/NAME@REVISION/predictions.json.
        references: COCO captions JSON; a file or an address.
        out: File of the protocol card (JSON).
        missing: How to treat images without a prediction.
        unknown: How to treat predictions without references.
        duplicates: How to treat several predictions of one image.
        document_frequencies: Document frequencies of CIDEr: stored (.parquet), or COCO captions to compute them from.
        meteor: Also compute METEOR; needs Java.
        spice: Also compute SPICE; needs Java.
        compare_java: Also score with pycocoevalcap; needs Java.
        images: Folder of the images that the references name; also compute CLIPScore and RefCLIPScore.
        clip_model: Architecture of open_clip; the default is that of the CLIPScore paper.
        clip_pretrained: Its weights: a tag of open_clip, or a file.

    Example:
        synth2 score predictions.json captions_val.json --out card.json
    """
    from synth2_lightning.reports.scores import score_predictions

    folder = None
    if images is not None:
        from synth2_lightning.encoders.open_clip import OpenClipImageTextEncoder
        from synth2_lightning.reports.clip_scores import ImageFolder

        folder = ImageFolder(images, OpenClipImageTextEncoder(clip_model, clip_pretrained))
    java_metrics = [name for name, is_wanted in (("METEOR", meteor), ("SPICE", spice)) if is_wanted]
    score_predictions(
        predictions,
        references,
        out,
        missing,
        unknown,
        duplicates,
        document_frequencies,
        java_metrics,
        compare_java,
        folder,
    )
