from pathlib import Path

from documents import fill
from scaling import closed_form, derive

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_document_has_the_tables_that_are_derived() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert fill(document, derive()) == document, "python benchmarks/scaling.py --write docs/scaling.md"


def test_the_closed_form_equals_the_count() -> None:
    # Width 1, one layer, two tokens, three words: 2 (28 + 4 (2 + 3)) + 3 * 4 * 5 + 2 * 2 (6 + 7).
    assert closed_form(width=1, depth=1, text_dim=5, tokens=2, words=3, dim=6, codes=7) == 96 + 60 + 52
