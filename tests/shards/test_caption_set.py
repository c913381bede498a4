import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth2_lightning.shards.caption_set import CaptionSetWriter, finish_caption_set, stream_answers
from synth2_lightning.types import ChatMessage, Completion, PromptBatch, SampleInfo, WrittenCaptions


def write(folder: Path, keys: list[str], rank: int = 0, records_per_part: int = 10) -> CaptionSetWriter:
    batch = PromptBatch(
        prompts=tuple((ChatMessage("user", key),) for key in keys),
        samples=tuple(  # later letters come first
            SampleInfo(key, "pets", class_name=key.rpartition("-")[0], seed=100 - ord(key[0])) for key in keys
        ),
        templates=("plain@1",) * len(keys),
    )
    answers = tuple(Completion(f"A {key}.", "stop", num_prompt_tokens=7, num_tokens=3) for key in keys)
    writer = CaptionSetWriter(folder, rank, records_per_part)
    writer.start({"model": {"name": "tiny"}})
    writer.append(WrittenCaptions(batch, answers, "tiny"))
    writer.close()
    return writer


def test_a_row_has_the_request_and_the_answer(tmp_path: Path) -> None:
    write(tmp_path, ["cat-0"])
    (row,) = pa.concat_tables(stream_answers(tmp_path)).to_pylist()
    assert row == {
        "key": "cat-0",
        "source": "pets",
        "class_name": "cat",
        "caption": "A cat-0.",
        "prompt": "plain@1",
        "model": "tiny",
        "seed": 1,
        "num_prompt_tokens": 7,
        "num_tokens": 3,
        "finish_reason": "stop",
    }


def test_answers_are_not_written_twice_and_their_order_is_that_of_their_seeds(tmp_path: Path) -> None:
    write(tmp_path, ["ant-0", "cat-0"], rank=1)
    assert write(tmp_path, ["cat-0", "bee-0"], rank=0)._next_number == 1
    assert pa.concat_tables(stream_answers(tmp_path))["key"].to_pylist() == ["cat-0", "bee-0", "ant-0"]


def test_what_is_left_and_what_is_not_add_up(tmp_path: Path) -> None:
    write(tmp_path, ["ant-0", "bee-0", "cat-0"], records_per_part=2)
    manifest = finish_caption_set(
        tmp_path,
        lambda records: (
            [replace(records[1], caption="A bee")],
            [
                (replace(records[2], caption=""), "Empty", "-"),
                (replace(records[0], caption="A c"), "Short", "too short"),
            ],
        ),
        lambda: [{"name": "Short", "num_rejected": 1}, {"name": "Empty"}],
        provenance={"made_by": "test"},
    )
    (kept,) = pq.read_table(tmp_path / "captions.parquet").to_pylist()
    assert (kept["key"], kept["caption"], kept["class_name"], kept["seed"]) == ("bee-0", "A bee", "bee", 2)
    rejected = pq.read_table(tmp_path / "rejected.parquet").to_pylist()
    assert [(row["key"], row["caption"], row["filter"], row["reason"]) for row in rejected] == [
        ("cat-0", "A c", "Short", "too short"),
        ("ant-0", "", "Empty", "-"),
    ]
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == {
        "schema_version": 1,
        "num_written": 3,
        "num_kept": 1,
        "num_tokens": 9,
        "num_prompt_tokens": 21,
        "finish_reasons": {"stop": 3},
        "filters": [{"name": "Short", "num_rejected": 1}, {"name": "Empty"}],
        "provenance": {"made_by": "test", "settings": {"model": {"name": "tiny"}}},
    }


def test_a_summary_is_withdrawn_when_the_set_grows(tmp_path: Path) -> None:
    write(tmp_path, ["ant-0"])
    finish_caption_set(tmp_path, lambda records: (records, []), list, {})
    write(tmp_path, ["bee-0"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000-00000.parquet", "part-00000-00001.parquet"]


def test_a_set_of_nothing_and_one_of_two_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no answers"):
        pa.concat_tables(stream_answers(tmp_path))
    write(tmp_path, ["ant-0"])
    other = tmp_path / "other"
    writer = CaptionSetWriter(other, rank=1)
    writer.start({"model": {"name": "small"}})
    writer.append(WrittenCaptions(PromptBatch((), (), ()), (), "small"))
    with pytest.raises(ValueError, match=r"model.*'tiny'.*'small'"):
        CaptionSetWriter(tmp_path).start({"model": {"name": "small"}})


def test_links_with_the_names_of_temporary_files_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "downloaded", ["ant-0"])
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (".answers.arrow", ".rejected.arrow"):
        (tmp_path / "downloaded" / name).symlink_to(victim)
    assert finish_caption_set(tmp_path / "downloaded", lambda records: (records, []), list, {})["num_kept"] == 1
    assert victim.read_text() == "mine"
