"""Filter of captions with personal names, which cannot be inferred from an image."""

import re
from functools import cached_property
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import split_words
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import read_lines
from synth2_lightning.types import CaptionRecord, Verdict

_TITLED = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Professor|President)\.? [A-Z][a-z]+")
# A name after "San" or "St." is usually a place or a church.
_CAPITALIZED = re.compile(r"(?<!\bSan )(?<!\bSanta )(?<!\bSt\. )(?<!\bSaint )\b[A-ZÀ-Þ][a-zß-ÿ]+\b")


class PersonalNameFilter(RecordFilter):
    """Rejects captions with a given name, or with a title and a name.

    A given name is a capitalized word of the list that is not part of the class name. The default list excludes names
    that are also words or places.

    Args:
        names: File of given names, one per line, with comments after ``#``; a path or ``package://PACKAGE/PATH``.

    Example:
        >>> texts = ("Emma feeds a goat.", "A rose in the hand of Dr. Who.", "A rose in a vase.")
        >>> [PersonalNameFilter().judge_one(CaptionRecord("a", text)).reason for text in texts]
        ['names a person', 'names a person', '']
    """

    def __init__(self, names: str = "package://synth2_lightning/filters/given_names.txt") -> None:
        self.names = names

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        found = {word.casefold() for word in _CAPITALIZED.findall(record.caption)} & self._names
        is_named = _TITLED.search(record.caption) or not found <= set(split_words(record.class_name))
        return Verdict(record.caption, "names a person" if is_named else "")

    def provenance(self) -> dict[str, Any]:
        """Return the file and a fingerprint of the names."""
        return {"names": self.names, "fingerprint": fingerprint_texts(sorted(self._names))}

    @cached_property
    def _names(self) -> set[str]:
        lines = read_lines(resolve(self.names, "list of given names"))
        return {name.casefold() for line in lines if (name := line.partition("#")[0].strip())}
