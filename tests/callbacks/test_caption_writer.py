import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.caption_writer import CaptionWriterCallback
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.concepts.sampling import UniformSampling
from synth2_lightning.concepts.table import TableConcepts
from synth2_lightning.datamodules.concepts import ConceptDataModule
from synth2_lightning.filters.duplicates import ExactDuplicates
from synth2_lightning.filters.length import LengthFilter
from synth2_lightning.modules.caption_writing import CaptionWritingModule
from synth2_lightning.shards import caption_set
from synth2_lightning.shards.caption_set import stream_answers
from synth2_lightning.testing import TinyCaptionGenerator
from synth2_lightning.types import Completion, PromptBatch, WrittenCaptions

pytestmark = pytest.mark.filterwarnings("ignore:Total length of `PredictBatches` across ranks is zero")
NAMES = ("dog", "old oak tree", "bus", "cat", "red fox", "sailing boat", "hen")


class Stopped(CaptionWritingModule):
    """Stops in its third batch."""

    error: type[BaseException] = KeyError

    def predict_step(self, batch: object, batch_idx: int) -> WrittenCaptions:
        if batch_idx == 2:
            raise self.error("stopped")
        return super().predict_step(batch, batch_idx)


class Recording(CaptionWritingModule):
    """Records the prompts."""

    def __init__(self) -> None:
        super().__init__(TinyCaptionGenerator())
        self.asked: list[str] = []

    def predict_step(self, batch: object, batch_idx: int) -> WrittenCaptions:
        assert isinstance(batch, PromptBatch)
        self.asked += [sample.class_name for sample in batch.samples]
        return super().predict_step(batch, batch_idx)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path / "names.txt"


def predict(
    names: Path, module: CaptionWritingModule | None = None, num_captions: int = 7, batch_size: int = 2, **settings: Any
) -> None:
    settings = {"records_per_part": 100} | settings
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[CaptionWriterCallback(str(names.parent / "set"), **settings)],
    )
    prompt = PromptTemplate("plain", 1, "{name}")
    data = ConceptDataModule(TableConcepts(str(names)), prompt, num_captions, UniformSampling(), batch_size)
    assert trainer.predict(module or CaptionWritingModule(TinyCaptionGenerator()), data) is None


def read(names: Path, file: str = "captions.parquet") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(names.parent / "set" / file).to_pylist()
    return rows


def test_class_names_become_a_caption_set(names: Path) -> None:
    predict(names, filters=[LengthFilter(min_words=7)])
    kept, rejected = read(names), read(names, "rejected.parquet")
    assert sorted(row["class_name"] for row in kept) == ["old oak tree", "red fox", "sailing boat"]
    assert sorted(row["class_name"] for row in rejected) == ["bus", "cat", "dog", "hen"]
    assert {(row["filter"], row["reason"]) for row in rejected} == {("LengthFilter", "fewer than 7 words")}
    for row in kept + rejected:
        assert row["caption"] == f"An image of {row['class_name']} number {row['seed'] % 1000}."
        assert (row["prompt"], row["model"], row["finish_reason"]) == ("plain@1", "tiny", "stop")
    manifest = json.loads((names.parent / "set" / "manifest.json").read_text())
    assert (manifest["num_written"], manifest["num_kept"]) == (7, 3)
    cleaned, count = manifest["filters"]
    assert (cleaned["name"], cleaned["num_seen"], cleaned["num_rejected"]) == ("AnswerFilter", 7, 0)
    assert (count["name"], count["num_seen"], count["num_rejected"]) == ("LengthFilter", 7, 4)
    assert count["fraction_rejected"] == 0.5714
    assert count["settings"]["min_words"] == 7
    assert manifest["provenance"]["settings"]["data"]["prompt"]["template"] == "plain@1"
    assert manifest["provenance"]["settings"]["model"]["salt"] == 0


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batch_size_does_not_change_the_set(names: Path, batch_size: int) -> None:
    predict(names)
    expected = read(names)
    for path in (names.parent / "set").iterdir():
        path.unlink()
    predict(names, batch_size=batch_size)
    assert read(names) == expected


@pytest.mark.parametrize("error", [KeyError, ConnectionError, KeyboardInterrupt, SystemExit])
def test_a_stopped_run_keeps_all_answers(names: Path, error: type[BaseException]) -> None:
    stopped = Stopped(TinyCaptionGenerator())
    stopped.error = error
    with pytest.raises((KeyError, ConnectionError, SystemExit)):
        predict(names, stopped)
    (part,) = (names.parent / "set").iterdir()
    assert pq.read_metadata(part).num_rows == 4

    module = Recording()
    predict(names, module)
    assert len(module.asked) == 3
    assert sorted(row["class_name"] for row in read(names)) == sorted(NAMES)


def test_other_filters_do_not_generate_again_and_are_named(names: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(names)
    assert len(read(names)) == 7
    assert "differ" not in caplog.text
    for _ in range(2):
        with caplog.at_level("INFO"):
            predict(names, Stopped(TinyCaptionGenerator()), filters=[LengthFilter(min_words=7)])
        assert len(read(names)) == 3
    assert len(re.findall(r"filters of .* differ.*LengthFilter.* 7 answers", caplog.text)) == 1


def test_blocks_and_parts_change_nothing_in_the_filtered_set(names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filters = [LengthFilter(min_words=7), ExactDuplicates()]
    files = ("captions.parquet", "rejected.parquet")
    predict(names, filters=filters, num_captions=40)
    expected = [read(names, file) for file in files]
    monkeypatch.setattr(caption_set, "_ROWS_AT_A_TIME", 3)
    predict(names, Stopped(TinyCaptionGenerator()), filters=filters, num_captions=40)
    assert [read(names, file) for file in files] == expected
    shutil.rmtree(names.parent / "set")
    predict(names, filters=filters, num_captions=40, records_per_part=4)
    assert [read(names, file) for file in files] == expected
    assert 0 < len(expected[0]) < 40
    assert [path.name for path in (names.parent / "set").iterdir() if path.name.startswith(".")] == []


def test_a_set_may_grow_but_not_change(names: Path) -> None:
    predict(names, num_captions=3)
    first = {row["key"]: row["caption"] for row in read(names)}
    predict(names)
    assert len(read(names)) == 7
    assert first.items() <= {row["key"]: row["caption"] for row in read(names)}.items()
    with pytest.raises(ValueError, match=r"model\.salt\b.*\b0\b.*\b1\b"):
        predict(names, CaptionWritingModule(TinyCaptionGenerator(salt=1)))


def test_other_predictions_are_refused(names: Path) -> None:
    module = CaptionWritingModule(TinyCaptionGenerator())
    module.predict_step = lambda batch, batch_idx: 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(TypeError, match=r"\bint\b.*CaptionWritingModule.*WrittenCaptions"):
        predict(names, module)


class Answering(CaptionWritingModule):
    """Returns the same answer to every prompt."""

    def __init__(self, text: str, finish_reason: str = "stop") -> None:
        super().__init__(TinyCaptionGenerator())
        self.answer = Completion(text, finish_reason, 9, 64)

    def predict_step(self, batch: object, batch_idx: int) -> WrittenCaptions:
        assert isinstance(batch, PromptBatch)
        return WrittenCaptions(batch, (self.answer,) * len(batch), "tiny")


def test_captions_are_read_out_of_answers_that_stay_as_they_came(names: Path) -> None:
    raw = "Okay, so a dog.\n</think>\n\nA dog &amp; a cat.<|im_end|>"
    predict(names, Answering(raw))
    assert {row["caption"] for row in read(names)} == {"A dog & a cat."}
    assert set(pa.concat_tables(stream_answers(names.parent / "set"))["caption"].to_pylist()) == {raw}


@pytest.mark.parametrize("text", ["", "<think>Okay, so", "<|channel|>analysis<|message|>Okay, so"])
def test_a_run_of_empty_answers_ends_with_a_warning_that_names_the_limit(names: Path, text: str) -> None:
    with pytest.warns(UserWarning, match=r"7 of 7.* caption.*\b7\b.*max_new_tokens"):
        predict(names, Answering(text, "length"))
    assert read(names) == []
    assert {row["filter"] for row in read(names, "rejected.parquet")} == {"AnswerFilter"}
