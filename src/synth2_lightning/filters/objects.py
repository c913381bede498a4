"""Filters of captions that do not name their class, or name it twice."""

from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import split_words
from synth2_lightning.types import CLASS_NAME_SEPARATOR, CaptionRecord, Verdict

_IRREGULAR = {
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "geese": "goose",
    "lice": "louse",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "teeth": "tooth",
}
_SMALL = {"a", "an", "and", "at", "by", "de", "for", "in", "of", "on", "s", "the", "to", "with"}
_OTHERS = {"another", "each", "one", "other", "others"}
_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("men", "man"), ("i", "us"), ("ae", "a"))


@dataclass(frozen=True)
class MissingObjectFilter(RecordFilter):
    """Rejects captions that do not name all of their classes.

    All words of a name must occur, in any order, singular or plural, joined or separate ("snow shoes" names a
    snowshoe). Synonyms do not count: an "espresso machine" is not accepted for an espresso maker. Captions without a
    class pass.

    Example:
        >>> record = CaptionRecord("a", "Two old women sell mice.", "woman + mouse")
        >>> MissingObjectFilter().judge_one(record).reason
        ''
        >>> MissingObjectFilter().judge_one(CaptionRecord("a", "A machine on a bar.", "espresso maker")).reason
        'does not name its object'
    """

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        words = _split_names(record.caption)
        names = [_split_names(name) for name in record.class_name.split(CLASS_NAME_SEPARATOR)]
        is_named = all(_is_among(name, words) or _is_written_jointly(name, words) for name in names)
        return Verdict(record.caption, "" if is_named else "does not name its object")


@dataclass(frozen=True)
class RepeatedObjectFilter(RecordFilter):
    """Rejects captions that name their class twice, such as "A door is carved into the wall with a wooden door".

    Small language models tend to repeat the given word. Accepted are "A dog chases another dog", and captions that
    name the class once per sentence. Captions without a class pass. Do not use this filter for large language models:
    it also rejects natural captions ("a black dog chases a white dog").

    Example:
        >>> texts = ("A tub of soap stands in a tub.", "A tub stands next to another tub.", "A tub. The tub is red.")
        >>> [RepeatedObjectFilter().judge_one(CaptionRecord("a", text, "tub")).reason for text in texts]
        ['names its object twice', '', '']
    """

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        name = set(_split_names(record.class_name)) - _SMALL
        is_twice = any(_occurs_twice(name, _split_names(sentence)) for sentence in record.caption.split(". "))
        return Verdict(record.caption, "names its object twice" if is_twice else "")


def _split_names(text: str) -> list[str]:
    # "The dog's" names a dog, and "jack-o'-lantern" is also written "jack o lantern".
    return [part for word in split_words(text) for part in word.removesuffix("'s").split("'")]


def _is_among(name: list[str], words: list[str]) -> bool:
    forms = set().union(*map(_find_singulars, words)) if words else set()
    return all(not forms.isdisjoint(_find_singulars(part)) for part in name)


def _is_written_jointly(name: list[str], words: list[str]) -> bool:
    joined = _find_singulars("".join(name))
    return any(
        not joined.isdisjoint(_find_singulars("".join(words[start : start + size])))
        for size in (1, 2, 3)
        for start in range(len(words) - size + 1)
    )


def _occurs_twice(name: set[str], words: list[str]) -> bool:
    if not _OTHERS.isdisjoint(words):
        return False
    forms = list(map(_find_singulars, words))
    return any(sum(not form.isdisjoint(_find_singulars(part)) for form in forms) > 1 for part in name)


def _find_singulars(word: str) -> set[str]:
    """Return a word and all its possible singulars; words with a common form are equal up to number."""
    forms = {word, _IRREGULAR.get(word, word)}
    if len(word) > 2 and not word.endswith(("ss", "us")):
        forms.update(word.removesuffix(plural) + ending for plural, ending in _ENDINGS if word.endswith(plural))
    return forms
