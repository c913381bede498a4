import csv
import json
import os
from pathlib import Path

import pytest

from synth2_lightning.io.console import visible
from synth2_lightning.shards.image_captions import Format, ImageCaptionFile, ImageCaptionStream, format_of

FORMATS: list[Format] = ["text", "jsonl", "csv"]
ROWS = [("a.jpg", 'a dog, "big"'), ("b\t\\t\nb.jpg", 'one " alone'), (os.fsdecode(b"\xff.png"), "ein Hündchen 🐕")]
IDS = {name: number for number, (name, _) in enumerate(ROWS)}


@pytest.mark.parametrize("format", [*FORMATS, "coco"])
def test_a_file_is_resumed(tmp_path: Path, format: Format) -> None:
    path = tmp_path / "new" / "captions"
    with ImageCaptionFile(path, format, {"beams": 3}, IDS) as file:
        file.append(ROWS[:2])
        before = path.read_bytes()
    with ImageCaptionFile(path, format, {"beams": 3}, IDS) as file:
        assert file.names == {name for name, _ in ROWS[:2]}
        file.append(ROWS[2:])
    assert path.read_bytes().startswith(before)
    with ImageCaptionFile(path, format, {"beams": 3}, IDS) as file:
        assert file.names == {name for name, _ in ROWS}


@pytest.mark.parametrize("format", [*FORMATS, "coco"])
def test_wherever_a_kill_cuts_only_whole_rows_are_kept(tmp_path: Path, format: Format) -> None:
    path = tmp_path / "captions"
    with ImageCaptionFile(path, format, {}, IDS) as file:
        file.append(ROWS)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with ImageCaptionFile(path, format, {}, IDS) as file:
            left = [row for row in ROWS if row[0] not in file.names]
            file.append(left)
        assert path.read_bytes() == whole


def test_rows_are_what_other_programs_read(tmp_path: Path) -> None:
    with ImageCaptionFile(tmp_path / "c.csv", "csv", {}) as file:
        file.append(ROWS[:2])
    with (tmp_path / "c.csv").open(newline="") as lines:
        assert [(row["image"], row["caption"]) for row in csv.DictReader(lines)] == ROWS[:2]
    with ImageCaptionFile(tmp_path / "c.jsonl", "jsonl", {}) as file:
        file.append(ROWS[:1])
    assert json.loads((tmp_path / "c.jsonl").read_text()) == {"image": "a.jpg", "caption": 'a dog, "big"'}
    with ImageCaptionFile(tmp_path / "c.json", "coco", {}, IDS) as file:
        file.append(ROWS[:1])
        file.append(ROWS[1:])
    results = [{"image_id": IDS[name], "caption": caption} for name, caption in ROWS]
    assert json.loads((tmp_path / "c.json").read_text()) == results


def test_captions_that_were_made_in_another_way_are_not_mixed(tmp_path: Path) -> None:
    with ImageCaptionFile(tmp_path / "c", "text", {"beams": 3}) as file:
        file.append(ROWS[:1])
    with pytest.raises(ValueError, match=r"beams.*3.*1"):
        ImageCaptionFile(tmp_path / "c", "text", {"beams": 1})
    with pytest.raises(ValueError, match=r"format.*'text'.*'csv'"):
        ImageCaptionFile(tmp_path / "c", "csv", {"beams": 3})


def test_a_file_of_another_program_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("dear diary")
    with pytest.raises(ValueError, match=r"diary\.made-by\.json.*missing"):
        ImageCaptionFile(tmp_path / "diary", "text", {})
    assert (tmp_path / "diary").read_text() == "dear diary"


@pytest.mark.parametrize(("format", "number"), [("text", 2), ("jsonl", 2), ("csv", 3)])
def test_a_damaged_row_is_named_and_nothing_is_changed(tmp_path: Path, format: Format, number: int) -> None:
    path = tmp_path / "c"
    with ImageCaptionFile(path, format, {}) as file:
        file.append(ROWS[:1])
    damaged = path.read_text() + "nonsense\nhalf"
    path.write_text(damaged)
    with pytest.raises(ValueError, match=f"Line or record {number} of {path} was not written by `synth2 caption`"):
        ImageCaptionFile(path, format, {})
    assert path.read_text() == damaged


def test_the_standard_output_gets_its_header_once(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    stream = ImageCaptionStream("csv")
    stream.append(ROWS[:1])
    stream.append([("b.jpg", "a cat")])
    assert capsysbinary.readouterr().out == b'image,caption\na.jpg,"a dog, ""big"""\nb.jpg,a cat\n'


def test_formats_are_known_by_the_ends_of_names() -> None:
    assert [format_of(Path(name)) for name in ("a.txt", "a.jsonl", "a.CSV", "")] == ["text", "jsonl", "csv", "text"]


@pytest.mark.parametrize("format", FORMATS)
def test_names_may_hold_what_ends_lines_and_fields(tmp_path: Path, format: Format) -> None:
    odd = ["\r", "\n", "\r\n", ",", '"', '""', "\t", "\\r", "\u2028", "\x85", "\x0b", "\x1c", " ", "'", ";", "\x00"]
    rows = [(f"a{letter}b.png", f"caption {number}") for number, letter in enumerate(odd)]
    rows += [(f"{letter}.png", "a dog") for letter in odd]
    with ImageCaptionFile(tmp_path / "c", format, {}) as file:
        file.append(rows)
    content = (tmp_path / "c").read_bytes()
    with ImageCaptionFile(tmp_path / "c", format, {}) as file:
        assert file.names == {name for name, _ in rows}
    assert (tmp_path / "c").read_bytes() == content


ESCAPE = "x\x1b]0;owned\x07\x9b2J\u202e\udc80.png"


@pytest.mark.parametrize("format", FORMATS)
def test_names_and_captions_do_not_act_on_the_terminal(format: Format, capsys: pytest.CaptureFixture[str]) -> None:
    ImageCaptionStream(format).append([(ESCAPE, "a\x1b[2J fox")])
    out = capsys.readouterr().out
    assert visible(out) == out
    assert "fox" in out
    if format == "jsonl":
        assert json.loads(out) == {"image": ESCAPE, "caption": "a\x1b[2J fox"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_keeps_them_and_is_resumed(format: Format, tmp_path: Path) -> None:
    for _ in range(2):
        with ImageCaptionFile(tmp_path / "captions", format, {}) as file:
            if not file.names:
                file.append([(ESCAPE, "a fox")])
    assert file.names == {ESCAPE}
