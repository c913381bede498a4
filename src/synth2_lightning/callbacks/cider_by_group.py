"""Scores captions by group as well, where the keys of pictures name their group."""

from collections.abc import Mapping, Sequence
from typing import Any

from synth2_lightning.callbacks.cider import CiderCallback
from synth2_lightning.callbacks.corpus_score import CorpusScore
from synth2_lightning.metrics.cider import cider


class CiderByGroupCallback(CiderCallback):
    """CIDEr over all pictures, and over each group by itself: what stands before the slash of a key, such as a domain.

    ``protocol.json`` has the groups under ``by_group``. Each is scored as a corpus of its own, by the document
    frequencies of its own references.

    Args:
        folder: See :class:`~synth2_lightning.callbacks.cider.CiderCallback`.

    Example:
        >>> people = {"near/1": ["a red circle"], "near/2": ["a blue cross"], "far/3": ["a fox"], "far/4": ["an owl"]}
        >>> said = {"near/1": "a red circle", "near/2": "a blue cross", "far/3": "a dog", "far/4": "a cat"}
        >>> groups = CiderByGroupCallback().score(said, people).card["by_group"]
        >>> {group: round(figures["score"], 2) for group, figures in groups.items()}
        {'far': 0.63, 'near': 7.5}
    """

    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Score captions against what people wrote of the same pictures, both by key.

        Raises:
            ValueError: If a key names no group.
        """
        whole = super().score(hypotheses, references)
        groups: dict[str, dict[str, str]] = {}
        for key, caption in hypotheses.items():
            group, slash, _ = key.partition("/")
            if not slash:
                raise ValueError(
                    f"CiderByGroupCallback was given the key {key!r}; expected GROUP/ID, such as 'in-domain/17'. Use "
                    "CiderCallback where pictures have no groups."
                )
            groups.setdefault(group, {})[key] = caption
        by_group: dict[str, dict[str, Any]] = {
            group: {
                "num_pictures": len(captions),
                "score": cider(captions, {key: references[key] for key in captions}).score,
            }
            for group, captions in sorted(groups.items())
        }
        return CorpusScore(whole.value, whole.card | {"by_group": by_group}, whole.rows)
