"""Groups of captions to select by."""

from rich.console import Console

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.metrics.clusters import fit_clusters, name_groups
from synth2_lightning.metrics.diversity import split_caption
from synth2_lightning.reports.caption_set import CaptionSet
from synth2_lightning.reports.embedding import embed_captions


def group_by_class(captions: CaptionSet) -> list[str]:
    """Give the class of every caption.

    Raises:
        ValueError: If the set names no classes.

    Example:
        >>> import pyarrow as pa
        >>> from pathlib import Path
        >>> rows = pa.table({"caption": ["a fox", "a dog"], "class_name": ["fox", "dog"]})
        >>> group_by_class(CaptionSet("animals", Path(), rows, num_blank=0, manifest={}))
        ['fox', 'dog']
    """
    names = captions.class_names
    if not any(names):
        raise ValueError(
            f"Captions {captions.name!r} name no classes; expected a column 'class_name' that is filled. Select by "
            "clusters instead."
        )
    return names


def group_by_cluster(
    captions: CaptionSet, encoder: TextEncoder, num_clusters: int, seed: int, console: Console
) -> list[str]:
    """Give the cluster of every caption, fitted to the whole set: its number by size, and its most typical words.

    Raises:
        ValueError: If there are fewer captions than clusters.

    Example:
        >>> import pyarrow as pa
        >>> from pathlib import Path
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> rows = pa.table({"caption": ["a fox", "a fox", "two dogs"]})
        >>> animals = CaptionSet("animals", Path(), rows, num_blank=0, manifest={})
        >>> group_by_cluster(animals, TinyTextEncoder(), num_clusters=2, seed=0, console=Console(quiet=True))
        ['1 a fox', '1 a fox', '2 dogs two']
    """
    encoder.load()
    texts = captions.captions
    clusters = fit_clusters(embed_captions(encoder, texts, captions.name, console), num_clusters, seed)
    labels = clusters.labels.tolist()
    words = name_groups([split_caption(text) for text in texts], labels, num_clusters)
    names = [" ".join([str(number), *typical]) for number, typical in enumerate(words, start=1)]
    return [names[label] for label in labels]
