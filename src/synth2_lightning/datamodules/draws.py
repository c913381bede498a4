"""Several images of one caption: their keys, and the rank of their scores."""

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from synth2_lightning.shards.reader import ShardReader


def copy_key(key: str, copy: int) -> str:
    """Return the key of one of the images of a caption: ``KEY``, ``KEY~1``, ``KEY~2`` and so on.

    Example:
        >>> copy_key("7", 0), copy_key("7", 2)
        ('7', '7~2')
    """
    return f"{key}~{copy}" if copy else key


def original_key(key: str) -> str:
    """Return the key of the first image of the same caption.

    Example:
        >>> original_key("7~2"), original_key("7")
        ('7', '7')
    """
    original, _, copy = key.rpartition("~")
    return original if original and copy.isdecimal() else key


def rank_draws(reader: ShardReader, scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rank of the score of each pair among the images of its caption, from 0 for the highest.

    Equal scores are ranked by key, so that the order of the rows does not matter. Memory is about 100 bytes per pair.

    Args:
        reader: Loaded reader.
        scores: Score of each caption of each row; :meth:`ShardReader.read_scores`.
    """
    names = reader.read_columns(["source", "key"])
    originals = pc.replace_substring_regex(names["key"], r"(.)~[0-9]+$", r"\1")
    images = np.asarray(pc.rank(pc.binary_join_element_wise(names["source"], originals, "\0"), tiebreaker="dense"))
    keys = np.asarray(pc.rank(names["key"], tiebreaker="dense"))
    counts = reader.count_captions()
    ordinals = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    images, keys = np.repeat(images, counts), np.repeat(keys, counts)
    order = np.lexsort((keys, -scores, ordinals, images))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(images[order]) != 0) | (np.diff(ordinals[order]) != 0)
    positions = np.arange(len(order))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = positions - np.maximum.accumulate(np.where(is_first, positions, 0))
    return ranks
