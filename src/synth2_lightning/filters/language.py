"""Captions in another language than the wanted one."""

from functools import cached_property
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.types import CaptionRecord, Verdict


class LanguageFilter(RecordFilter):
    """Rejects captions that are hardly in the wanted language, by py3langid (139 languages, no download).

    A caption is too short to tell kindred languages apart with certainty, so the question is not which language is the
    likeliest, but whether the wanted one is out of the question: of a few words the likeliest is often wrong.

    Args:
        language: ISO 639-1 code.
        min_probability: Least probability of that language, above 0 and at most 1.

    Raises:
        ValueError: If the probability is out of range; at the first caption, if py3langid does not know the language.

    Example:
        >>> LanguageFilter().judge_one(CaptionRecord("a", "Ein brauner Hund läuft über die Wiese.")).reason
        'not in en'
    """

    def __init__(self, language: str = "en", min_probability: float = 0.05) -> None:
        if not 0 < min_probability <= 1:
            raise ValueError(f"LanguageFilter got min_probability={min_probability}; expected above 0 and at most 1.")
        self.language = language
        self.min_probability = min_probability

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Compare with all languages that the identifier knows."""
        probability = dict(self._identifier.rank(record.caption))[self.language]
        return Verdict(record.caption, "" if probability >= self.min_probability else f"not in {self.language}")

    def provenance(self) -> dict[str, Any]:
        """Give the language, the probability and the identifier's version, whose model decides."""
        from py3langid import __version__

        return {"language": self.language, "min_probability": self.min_probability, "py3langid": __version__}

    @cached_property
    def _identifier(self) -> Any:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if self.language not in identifier.labels:
            raise ValueError(
                f"LanguageFilter was asked for language {self.language!r}, which py3langid does not know; expected one "
                f"of {', '.join(sorted(identifier.labels))}."
            )
        return identifier
