"""``synth2 report``."""

from collections.abc import Sequence
from pathlib import Path

from synth2_lightning.cli.engines import open_engine


def report(
    sets: Sequence[str],
    *,
    out: Path = Path("report"),
    sample: int = 5000,
    evaluation: str | None = None,
    encoder: str = "weights://all-minilm-l6-v2",
    num_clusters: int = 20,
    seed: int = 0,
    ray: str | None = None,
) -> None:
    """Compare caption sets: an HTML page with statistics, charts and a map of clusters.

    Args:
        sets: Folder of a caption set, table with a column `caption`, COCO captions JSON, or a text file with one
            caption per line. NAME=PATH gives it a name.
        out: Folder to write to.
        sample: Maximum number of captions of each set.
        evaluation: A set of captions that should not be in the others.
        encoder: Sentence encoder: a folder, a name on the Hugging Face Hub, or weights://NAME.
        num_clusters: Number of clusters.
        seed: Seed of samples and clusters.
        ray: Use Ray Data for sets larger than memory: local for the cores of this machine, auto or HOST:PORT for a
            cluster with access to the same files. Needs pip install "synth2-lightning[ray]".

    Example:
        synth2 report captions/imagenet21k people=data/captions_train.json --out report
    """
    from synth2_lightning.encoders.text import PretrainedTextEncoder
    from synth2_lightning.reports.commands import report_on_sets

    text_encoder = PretrainedTextEncoder(encoder, dtype="auto")
    with open_engine(ray) as engine:
        report_on_sets(sets, out, text_encoder, num_clusters, sample, seed, evaluation, engine=engine)
