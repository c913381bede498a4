"""Nearest captions of images in shards by sentence embeddings."""

import numpy as np
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.shards.reader import ShardReader

_NUM_COLUMNS = 16_384


class CaptionIndex:
    """Index of the captions of images in shards; equal captions of several images are one entry.

    Memory holds an embedding per different caption (4 bytes per dimension) and 16 bytes per pair.

    Args:
        reader: Loaded reader.
        encoder: Loaded sentence encoder.

    Attributes:
        embeddings: Unit vectors of the different captions.
        embedding_of: See :meth:`find`.

    Raises:
        ValueError: If the shards have no captions.
    """

    def __init__(self, reader: ShardReader, encoder: TextEncoder) -> None:
        columns = reader.read_columns(["key", "captions"])
        captions = pc.list_flatten(columns["captions"])
        if not len(captions):
            raise ValueError(
                f"The shards {reader.folder} have no captions; expected at least one. Caption their images with "
                "another captioner."
            )
        different = pc.unique(captions)
        different = different.take(pc.array_sort_indices(different))  # the order of the rows depends on the ranks
        labels = np.asarray(pc.index_in(captions, different), np.int64)
        rows = np.repeat(np.arange(len(reader)), reader.count_captions())
        keys = np.asarray(pc.rank(columns["key"], tiebreaker="dense"), np.int64)[rows]
        self._rows = rows[np.lexsort((keys, labels))]
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
        self.embeddings: Float[Tensor, "captions dim"] = embed_sentences(encoder, different.to_pylist())

    def find(self, queries: Float[Tensor, "batch dim"], num: int) -> Int[Tensor, "batch num"]:
        """Return the most similar captions of each query, or all if there are fewer, from the nearest.

        Cosines are computed in float64, so that their order depends as little as possible on the rest of the batch.
        """
        values = torch.empty(len(queries), 0, dtype=torch.float64)
        captions = torch.empty(len(queries), 0, dtype=torch.long)
        for start in range(0, len(self.embeddings), _NUM_COLUMNS):
            cosines = queries.double() @ self.embeddings[start : start + _NUM_COLUMNS].double().T
            numbers = torch.arange(start, start + cosines.shape[1]).expand(len(queries), -1)
            values, captions = torch.cat([values, cosines], 1), torch.cat([captions, numbers], 1)
            values, order = values.topk(min(num, values.shape[1]), dim=1)
            captions = captions.gather(1, order)
        return captions

    def list_images(self, caption: int, offset: int) -> NDArray[np.int64]:
        """Return the rows with a caption, rotated by an offset: different offsets begin with different images."""
        rows = self._rows[self._starts[caption] : self._starts[caption + 1]]
        rotated: NDArray[np.int64] = np.roll(rows, -(offset % len(rows)))
        return rotated
