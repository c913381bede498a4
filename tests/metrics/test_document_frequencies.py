from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cider import make_captions
from synth2_lightning.metrics.cider import cider
from synth2_lightning.metrics.corpus_metrics import Cider
from synth2_lightning.metrics.document_frequencies import (
    DocumentFrequencies,
    count_document_frequencies,
    load_document_frequencies,
)


def test_frequencies_of_the_scored_images_equal_the_default() -> None:
    hypotheses, references = make_captions(200)
    hypotheses["1"] = "1 1/2 (odd) things, isn't it?"
    references["1"] = ["", "1 1/2 odd things", "the things"]
    own = cider(hypotheses, references)
    assert own.score > 0.1
    stored = cider(hypotheses, references, count_document_frequencies(references))
    assert stored.scores == pytest.approx(own.scores, abs=1e-12)


def test_an_image_scores_the_same_alone_and_in_a_corpus(caplog: pytest.LogCaptureFixture) -> None:
    hypotheses, references = make_captions(50)
    frequencies = count_document_frequencies(references)
    together = cider(hypotheses, references, frequencies)
    alone = {key: cider({key: text}, references, frequencies).score for key, text in hypotheses.items()}
    assert alone == pytest.approx(together.scores, abs=1e-12)
    assert together.score == pytest.approx(sum(alone.values()) / 50)
    assert not caplog.records


def test_rare_words_count_more_than_common_ones() -> None:
    references = {str(number): ["a dog"] for number in range(9)} | {"9": ["a zebra"]}
    frequencies = count_document_frequencies(references)
    scored = cider({"0": "a cat zebra"}, {"0": ["a dog zebra"]}, frequencies).score
    assert scored > cider({"0": "a cat dog"}, {"0": ["a zebra dog"]}, frequencies).score


def test_frequencies_round_trip_through_a_small_file(tmp_path: Path) -> None:
    _, references = make_captions(300)
    frequencies = count_document_frequencies(references)
    path = tmp_path / "frequencies.parquet"
    frequencies.save(path)
    read = load_document_frequencies(path)
    assert (read.num_images, read.counts) == (300, frequencies.counts)
    assert path.stat().st_size < 8 * len(read.counts)
    assert min(read.counts.values()) == 2


def test_metric_with_stored_frequencies() -> None:
    frequencies = count_document_frequencies({"1": ["a dog runs"], "2": ["a cat sits"], "3": ["two birds"]})
    metric = Cider(frequencies)
    metric.update(["1"], ["a dog sits"], [["a dog runs"]])
    assert metric.compute().item() == pytest.approx(
        cider({"1": "a dog sits"}, {"1": ["a dog runs"]}, frequencies).score
    )
    assert metric.compute() > 1


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": ["a dog"]}), path)
    with pytest.raises(ValueError, match=r"captions\.parquet.*document frequencies.*\['caption"):
        load_document_frequencies(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"captions\.parquet.*Parquet.*Docum"):
        load_document_frequencies(path)


@pytest.mark.parametrize(("num_images", "count"), [(0, 1), (2, None)])
def test_damaged_counts_are_refused(tmp_path: Path, num_images: int, count: int | None) -> None:
    DocumentFrequencies(num_images, {"dog": 1}).save(tmp_path / "pets.parquet")
    table = pq.read_table(tmp_path / "pets.parquet")
    counts = pa.array([count], table.schema.field("images").type)
    pq.write_table(table.set_column(1, table.schema.field("images"), counts), tmp_path / "pets.parquet")
    with pytest.raises(ValueError, match=r"pets\.parquet is damaged"):
        load_document_frequencies(tmp_path / "pets.parquet")


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="Document frequencies"):
        count_document_frequencies({})


def test_references_of_fewer_words_than_the_longest_n_gram_are_counted() -> None:
    assert count_document_frequencies({"1": ["dog"], "2": ["dog"]}).counts == {"dog": 2}
