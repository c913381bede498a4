import pytest

from synth2_lightning.callbacks.cider_by_group import CiderByGroupCallback
from synth2_lightning.metrics.cider import cider

REFERENCES = {
    "in-domain/1": ["a dog runs", "the dog is running"],
    "in-domain/2": ["a cat sleeps", "a sleeping cat"],
    "out-domain/3": ["a xylophone on a table", "one xylophone"],
    "out-domain/4": ["a manatee in water", "a swimming manatee"],
}
CAPTIONS = {
    "in-domain/1": "a dog runs",
    "in-domain/2": "a cat",
    "out-domain/3": "a piano on a table",
    "out-domain/4": "a manatee in water",
}


def test_every_group_is_a_separate_corpus() -> None:
    result = CiderByGroupCallback().score(CAPTIONS, REFERENCES)
    assert result.value == cider(CAPTIONS, REFERENCES).score
    for group, figures in result.card["by_group"].items():
        keys = [key for key in CAPTIONS if key.startswith(group)]
        alone = cider({key: CAPTIONS[key] for key in keys}, {key: REFERENCES[key] for key in keys})
        assert figures == {"num_images": 2, "score": alone.score}
    assert set(result.card["by_group"]) == {"in-domain", "out-domain"}


def test_keys_without_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'17'.*GROUP/ID"):
        CiderByGroupCallback().score({"17": "a dog", "18": "a cat"}, {"17": ["a dog"], "18": ["a cat"]})
