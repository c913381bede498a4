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
    """Select a subset of a caption set, balanced over all or the largest clusters or classes.

    Args:
        captions: Folder of a caption set, table with a column `caption`, COCO captions JSON, or a text file with one
            caption per line.
        out: Folder of the new caption set.
        num: Number of captions to select.
        by: Grouping of the captions.
        num_groups: Number of largest groups to select from. By default all.
        encoder: Sentence encoder of the clusters: a folder, a name on the Hugging Face Hub, or weights://NAME.
        num_clusters: Number of clusters.
        seed: Seed of the selection and the clusters.
        ray: Use Ray Data for sets larger than memory: local for the cores of this machine, auto or HOST:PORT for a
            cluster with access to the same files. Needs pip install "synth2-lightning[ray]".

    Example:
        synth2 select captions/imagenet21k --out captions/balanced --num 400
    """
    from synth2_lightning.io.locations import resolve

    resolve(captions, "caption set")  # before the slow imports
    from synth2_lightning.encoders.text import PretrainedTextEncoder
    from synth2_lightning.reports.commands import select_by_class, select_by_cluster

    with open_engine(ray) as engine:
        if by == "class":
            select_by_class(captions, out, num, num_groups, seed, engine=engine)
        else:
            text_encoder = PretrainedTextEncoder(encoder, dtype="auto")
            select_by_cluster(captions, out, num, text_encoder, num_clusters, num_groups, seed, engine=engine)
