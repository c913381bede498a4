"""``synth2 deduplicate``."""

from pathlib import Path

from synth2_lightning.cli.engines import open_engine


def deduplicate(captions: str, *, out: Path, threshold: float = 0.7, ray: str | None = None) -> None:
    """Write a caption set without near duplicates of earlier captions.

    Args:
        captions: Folder of a caption set, table with a column `caption`, COCO captions JSON, or a text file with one
            caption per line.
        out: Folder of the new caption set.
        threshold: Jaccard similarity of word bigrams, above 0 and below 1, from which two captions are near duplicates.
        ray: Use Ray Data for sets larger than memory: local for the cores of this machine, auto or HOST:PORT for a
            cluster with access to the same files. Needs pip install "synth2-lightning[ray]".

    Example:
        synth2 deduplicate captions/imagenet21k --out captions/unique
    """
    from synth2_lightning.io.locations import resolve

    resolve(captions, "caption set")  # before the slow imports
    from synth2_lightning.filters.duplicates import NearDuplicates
    from synth2_lightning.reports.deduplication import deduplicate as write_without_duplicates

    near = NearDuplicates(threshold)
    with open_engine(ray) as engine:
        write_without_duplicates(captions, out, near, engine=engine)
