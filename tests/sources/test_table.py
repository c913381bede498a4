from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.table import TableSource

CONTENTS = {
    "t.csv": '\ufeffimage,text\n1.png,"a red, red square"\n2.png,b\n1.png,c\n,d\n',
    "t.tsv": "image\ttext\n1.png\ta red, red square\n2.png\tb\n1.png\tc\n\td\n",
    "t.jsonl": '{"image": "1.png", "text": "a red, red square"}\n{"image": "2.png", "text": "b"}\n'
    '{"image": "1.png", "text": "c"}\n{"image": null, "text": "d"}\n',
}


def make(folder: Path, name: str, content: str, caption_column: str = "text") -> TableSource:
    (folder / name).write_text(content, encoding="utf-8")
    return TableSource(str(folder / name), str(folder), file_column="image", caption_column=caption_column)


@pytest.mark.parametrize("name", CONTENTS)
def test_rows_of_one_file_are_captions_of_one_image(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "1.png")
    source = make(tmp_path, name, CONTENTS[name])
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("1.png", ("a red, red square", "c")),
        ("2.png", ("b",)),
    ]
    assert source.image(0).size == (3, 2)
    assert "1 records without a file name (the first: record 4)" in caplog.text


def test_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1.*'comment'.*'image'.*'text'"):
        make(tmp_path, "t.csv", CONTENTS["t.csv"], caption_column="comment").load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "", r"t\.txt.*expected.*\.csv, \.tsv, \.jsonl"),
        ("t.jsonl", "{}\n{", r"line 2, .*valid JSON .*expected one object per line"),
        ("t.jsonl", "[1]", r"line 1, .*\[1\].*expected one object per line"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    source = make(tmp_path, name, content)
    source.caption_column = source.file_column = "image"
    if name.endswith("jsonl") and content.startswith("{}"):
        (tmp_path / name).write_text('{"image": "1.png"}\n{')

    with pytest.raises(ValueError, match=message):
        source.load()


def test_flickr30k_has_a_delimiter_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        "image_name| comment_number| comment",
        '1.jpg| 0| "Two" dogs, one cat .',
        "1.jpg| 1| Dogs .",
        "2.jpg| 4   A dog .",
    ]
    (tmp_path / "results.csv").write_text("\n".join(lines))
    source = TableSource(str(tmp_path / "results.csv"), str(tmp_path), "image_name", "comment", delimiter="|")
    source.load()

    assert [source.captions(index) for index in range(len(source))] == [('"Two" dogs, one cat .', "Dogs .")]
    assert "1 images without a caption (the first: 2.jpg)" in caplog.text
