"""Captions about persons with a name, whom no picture shows to a reader who does not know them."""

import re
from functools import cached_property
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import split_words
from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.locations import resolve
from synth2_lightning.tables import read_lines
from synth2_lightning.types import CaptionRecord, Verdict

_TITLED = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Professor|President)\.? [A-Z][a-z]+")
# A name after "San" or "St." is a place or a church.
_CAPITALISED = re.compile(r"(?<!\bSan )(?<!\bSanta )(?<!\bSt\. )(?<!\bSaint )\b[A-ZÀ-Þ][a-zß-ÿ]+\b")


class PersonalNameFilter(RecordFilter):
    """Rejects captions with a given name, or with a title and a name.

    A name counts where it begins with a capital and is no part of the class name. The list that ships leaves out names
    that are words or places, too.

    Args:
        names: A file of given names, one a line, with comments after ``#``; a path or ``package://PACKAGE/PATH``.

    Example:
        >>> texts = ("Emma feeds a goat.", "A rose in the hand of Dr. Who.", "A rose in a vase.")
        >>> [PersonalNameFilter().judge_one(CaptionRecord("a", text)).reason for text in texts]
        ['names a person', 'names a person', '']
    """

    def __init__(self, names: str = "package://synth2_lightning/filters/given_names.txt") -> None:
        self.names = names

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Look for a title, then for given names."""
        found = {word.casefold() for word in _CAPITALISED.findall(record.caption)} & self._names
        is_named = _TITLED.search(record.caption) or not found <= set(split_words(record.class_name))
        return Verdict(record.caption, "names a person" if is_named else "")

    def provenance(self) -> dict[str, Any]:
        """Give the file, and a fingerprint of the names."""
        return {"names": self.names, "fingerprint": fingerprint_texts(sorted(self._names))}

    @cached_property
    def _names(self) -> set[str]:
        lines = read_lines(resolve(self.names, "list of given names"))
        return {name.casefold() for line in lines if (name := line.partition("#")[0].strip())}
