"""``synth2 select``."""

from pathlib import Path
from typing import Literal

from synth2_lightning.cli.engines import open_engine


def select(
    captions: str,
    *,
    out: Path,
    num: int,
    by: Literal["clusters", "class"] = "clusters",
    num_groups: int | None = None,
    encoder: str = "weights://all-minilm-l6-v2",
    num_clusters: int = 20,
    seed: int = 0,
    ray: str | None = None,
) -> None:
    """Select a part of a caption set that is even over clusters or classes, or over the largest of them.

    Args:
        captions: Folder of a caption set, table with a column `caption`, COCO captions JSON, or a text file with one
            caption a line.
        out: Folder of the new caption set.
        num: How many captions to select.
        by: What groups the captions.
        num_groups: Select from the largest groups only. By default from all.
        encoder: Sentence encoder of the clusters: a folder, or a name on the Hugging Face Hub.
        num_clusters: Number of clusters; the default is the paper's.
        seed: Of the selection and the clusters.
        ray: Read sets that do not fit into memory by Ray Data: local for the cores of this machine, auto or HOST:PORT
            for a cluster that reads the same files. Needs pip install "synth2-lightning[ray]".

    Raises:
        OSError: If the set cannot be read, the folder cannot be written, or Ray is not reached.
        ValueError: If the set is malformed or has fewer captions.

    Example:
        synth2 select captions/imagenet21k --out captions/even --num 400
    """
    from synth2_lightning.encoders.text import PretrainedTextEncoder
    from synth2_lightning.reports.commands import select_by_class, select_by_cluster

    with open_engine(ray) as engine:
        if by == "class":
            select_by_class(captions, out, num, num_groups, seed, engine=engine)
        else:
            text_encoder = PretrainedTextEncoder(encoder, dtype="bfloat16")
            select_by_cluster(captions, out, num, text_encoder, num_clusters, num_groups, seed, engine=engine)
