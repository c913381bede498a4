import pytest

from synth2_lightning.filters.language import LanguageFilter
from synth2_lightning.types import CaptionRecord

ENGLISH = (
    *("A brown dog runs over the grass.", "Two sheep.", "A woman in a red dress waits at a bus stop in the rain."),
    *("Several small boats float in a calm harbor.", "A man rides a bike."),
)
FOREIGN = (
    *(
        "Ein brauner Hund läuft über die Wiese.",
        "Un chien brun court dans l'herbe.",
        "Un cane marrone corre sull'erba.",
    ),
    *(
        "Um cachorro marrom corre na grama.",
        "En brun hund springer över gräset.",
        "Een bruine hond rent door het gras.",
    ),
    *("Bir köpek çimlerin üzerinde koşuyor.", "一只狗在草地上奔跑。", "Коричневая собака бежит по траве."),
)


def reasons(judge: LanguageFilter, captions: tuple[str, ...]) -> set[str]:
    return {verdict.reason for verdict in judge.judge([CaptionRecord(text, text) for text in captions])}


def test_english_is_distinguished_from_other_languages() -> None:
    judge = LanguageFilter()
    assert reasons(judge, ENGLISH) == {""}
    assert reasons(judge, FOREIGN) == {"not in en"}


def test_another_language_can_be_chosen() -> None:
    judge = LanguageFilter(language="de")
    assert reasons(judge, FOREIGN[:1]) == {""}
    assert reasons(judge, ENGLISH[-3:]) == {"not in de"}
    assert judge.provenance().keys() == {"language", "min_probability", "py3langid"}


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"LanguageFilter.*min_probability=0\.0"):
        LanguageFilter(min_probability=0.0)
    with pytest.raises(ValueError, match=r"'klingon'.*py3langid.* de, .* en"):
        LanguageFilter(language="klingon").judge_one(CaptionRecord("a", "nuqneH"))
