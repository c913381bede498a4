"""CIDEr by group of images, such as domains."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from synth2_lightning.callbacks.cider import CiderCallback
from synth2_lightning.callbacks.corpus_score import CorpusScore
from synth2_lightning.metrics.cider import cider


class CiderByGroupCallback(CiderCallback):
    """CIDEr over all images and over each group; the group is the part of an image's key before the slash.

    ``protocol.json`` has the groups under ``by_group``. Each is scored as a separate corpus, with the document
    frequencies of its own references.

    Args:
        folder: See :class:`~synth2_lightning.callbacks.cider.CiderCallback`.

    Example:
        >>> captions = {"near/1": "a red circle", "near/2": "a blue cross", "far/3": "a dog", "far/4": "a cat"}
        >>> texts = (["a red circle"], ["a blue cross"], ["a fox"], ["an owl"])
        >>> references = dict(zip(captions, texts, strict=True))
        >>> groups = CiderByGroupCallback().score(captions, references).card["by_group"]
        >>> {group: round(figures["score"], 2) for group, figures in groups.items()}
        {'far': 0.63, 'near': 7.5}
    """

    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Return the score of captions against the references of the same images, both by key.

        Raises:
            ValueError: If a key has no group.
        """
        overall = super().score(hypotheses, references)
        groups: dict[str, dict[str, str]] = {}
        for key, caption in hypotheses.items():
            group, slash, _ = key.partition("/")
            if not slash:
                raise ValueError(
                    f"CiderByGroupCallback got the key {key!r}; expected GROUP/ID, such as 'in-domain/17'. Use "
                    "CiderCallback for images without groups."
                )
            groups.setdefault(group, {})[key] = caption
        by_group: dict[str, dict[str, Any]] = {
            group: {
                "num_images": len(captions),
                "score": cider(captions, {key: references[key] for key in captions}).score,
            }
            for group, captions in sorted(groups.items())
        }
        return replace(overall, card=overall.card | {"by_group": by_group})
