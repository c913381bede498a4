import random

import pytest

from synth2_lightning.metrics.cider_reward import CiderReward
from synth2_lightning.metrics.ptb import tokenize


def random_caption(rng: random.Random) -> str:
    words = ["a", "the", "red", "dog", "runs", "on", "grass", "Mr. Fox", "it's", "two", "7"]
    return " ".join(rng.choices(words, k=rng.choice([1, 3, 6, 9]))) + rng.choice(["", ".", " .", " !"])


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocoevalcap_with_the_end_as_a_word(seed: int) -> None:
    from pycocoevalcap.cider.cider import Cider as CocoCider

    rng = random.Random(seed)
    references = [tuple(random_caption(rng) for _ in range(rng.randint(1, 5))) for _ in range(30)]
    captions = [rng.choice([random_caption(rng), rng.choice(texts)]) for texts in references]
    is_complete = [rng.random() < 0.7 for _ in captions]

    rewards = CiderReward(references)(captions, is_complete, references)

    _, expected = CocoCider().compute_score(  # counts document frequencies in these references
        {row: [f"{tokenize(text)} END" for text in texts] for row, texts in enumerate(references)},
        {
            row: [f"{tokenize(text)} END" if ended else tokenize(text)]
            for row, (text, ended) in enumerate(zip(captions, is_complete, strict=True))
        },
    )
    assert max(expected) > 5
    assert rewards.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_bad_ending_and_a_missing_one_are_penalized() -> None:
    images = [("a dog runs on the grass",), ("a cat sleeps on the sofa",), ("a dog runs on a beach",)]
    reward = CiderReward([*images, ("two birds",)])
    captions = ["a dog runs on the grass", "a dog runs on the grass", "a dog runs on the", "a dog runs"]
    whole, cut, bad_ending, _ = reward(captions, [True, False, True, True], [images[0]] * 4)
    assert whole == pytest.approx(10)
    assert bad_ending < cut < whole


def test_empty_captions_have_a_reward() -> None:
    images = [("a dog",), ("a cat",), ("two birds",)]
    rewards = CiderReward(images)(["", "", "a dog"], [True, False, True], [images[0]] * 3)
    assert rewards[:2].tolist() == [0, 0]
    assert rewards[2] > 5


def test_captions_without_references_are_refused() -> None:
    with pytest.raises(ValueError, match=r"references.*at least one caption"):
        CiderReward([("a dog",), ("a cat",)])(["a dog"], [True], [()])
