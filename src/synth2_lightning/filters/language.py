"""Filter of captions by language."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.io.extras import require_extra
from synth2_lightning.types import CaptionRecord, Verdict


@dataclass(frozen=True)
class LanguageFilter(RecordFilter):
    """Rejects captions that are unlikely to be in the given language, by py3langid (139 languages, no download).

    The filter uses the probability of the given language, because the most probable language of a few words is often
    wrong.

    Args:
        language: ISO 639-1 code.
        min_probability: Minimum probability of the language, above 0 and at most 1.

    Raises:
        ValueError: If ``min_probability`` is out of range; at the first caption, if py3langid lacks the language.

    Example:
        >>> LanguageFilter().judge_one(CaptionRecord("a", "Ein brauner Hund läuft über die Wiese.")).reason
        'not in en'
    """

    language: str = "en"
    min_probability: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.min_probability <= 1:
            raise ValueError(f"{self} is out of range; expected min_probability above 0 and at most 1.")

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        probability = dict(self._identifier.rank(record.caption))[self.language]
        return Verdict(record.caption, "" if probability >= self.min_probability else f"not in {self.language}")

    def provenance(self) -> dict[str, Any]:
        """Return the arguments and the version of py3langid, which includes the model."""
        require_extra("py3langid", "captions")
        from py3langid import __version__

        return {**super().provenance(), "py3langid": __version__}

    @cached_property
    def _identifier(self) -> Any:
        require_extra("py3langid", "captions")
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if self.language not in identifier.labels:
            raise ValueError(
                f"LanguageFilter got language {self.language!r}, which py3langid does not support; expected one of "
                f"{', '.join(sorted(identifier.labels))}."
            )
        return identifier
