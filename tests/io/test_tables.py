import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth2_lightning.io.tables import read_lines, read_rows, take_key, take_text

ROWS = [{"id": "1", "text": "a red, red square"}, {"id": "2", "text": "b"}]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist([row | {"unread": b"x"} for row in ROWS]), path, row_group_size=1)
        case ".jsonl":
            path.write_text('{"id": "1", "text": "a red, red square"}\n{"id": "2", "text": "b"}\n')
        case ".csv":
            path.write_text('\ufeffid,text\n1,"a red, red square"\n2,b\n', encoding="utf-8")
        case _:
            path.write_text("id\ttext\n1\ta red, red square\n2\tb\n")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "T.CSV"])
def test_rows_are_read_in_order(tmp_path: Path, name: str) -> None:
    assert list(read_rows(write(tmp_path, name.lower()), ["id", "text"])) == ROWS


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_missing_column_is_named_beside_those_there_are(tmp_path: Path, name: str) -> None:
    message = r"\['caption'\].*\['id', 'text'"
    with pytest.raises(ValueError, match=message):
        list(read_rows(write(tmp_path, name), ["caption"]))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("id,text")
    with pytest.raises(ValueError, match=r"t\.parquet.*Parquet.*[Ee]xpected"):
        list(read_rows(tmp_path / "t.parquet", ["id"]))


def test_a_folder_is_refused_and_the_tables_in_it_are_named(tmp_path: Path) -> None:
    for name in ("README.md", "captions.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"is a folder; expected a table, such as \S+captions\.parquet\.$"):
        next(read_rows(tmp_path, ["caption"]))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.xlsx.*\.csv"):
        list(read_rows(tmp_path / "t.xlsx", ["id"]))


@pytest.mark.parametrize(
    ("name", "content", "captions"),
    [
        # TSV on the web does not quote.
        ("t.tsv", 'caption\tfile\n"red dress\t1\na boat\t2\nsays woof"\t3\na kite\t4\n', None),
        ("t.tsv", 'caption\tfile\n"red" dress\t1\na 5" screen\t2\n"""\t3\n', ['"red" dress', 'a 5" screen', '"""']),
        ("t.tsv", 'caption\tfile\n"a ""red"" dress"\t1\n"a boat"\t2\n', ['a "red" dress', "a boat"]),
        ("t.tsv", 'caption\tfile\n"red dress\t"a.jpg\n', ['"red dress']),
        # CSV by RFC 4180 quotes, also over several lines.
        ("t.csv", 'caption,file\n"a dog\nruns",1\r\n"a ""red""\n\ndress",2\n', ["a dog\nruns", 'a "red"\n\ndress']),
        ("t.csv", 'caption,file\n"a dog, a cat\n and a fox, all\nrun",1\n', ["a dog, a cat\n and a fox, all\nrun"]),
        ("t.csv", 'file,caption\n1,"A dog, big\nin a park, today"\n', ["A dog, big\nin a park, today"]),
        ("t.csv", 'caption,file\na 5" screen,1\na dog says "woof",2\n', ['a 5" screen', 'a dog says "woof"']),
        ("t.csv", 'caption,file\n"a dog, running",1\n"",2\n', ["a dog, running", ""]),
        # Blank lines are not rows, and only line feeds and carriage returns end a line.
        ("t.csv", "\n\ncaption,file\r\n\r\na dog,1\r\n\r\n", ["a dog"]),
        ("t.csv", "caption,file\ra dog,1\ra cat,2\r", ["a dog", "a cat"]),
        ("t.csv", "caption,file\na\u2028dog\x85runs\x0bfast\x0c\x1c,1\n", ["a\u2028dog\x85runs\x0bfast\x0c\x1c"]),
        ("t.jsonl", '\n{"caption": "a\u2028dog\x85"}\n\n{"caption": "a cat"}\n\n \n', ["a\u2028dog\x85", "a cat"]),
        # Concatenated files have byte order marks inside, too.
        ("t.jsonl", '\ufeff{"caption": "a dog"}\n\ufeff{"caption": "a cat"}\n', ["a dog", "a cat"]),
        ("t.csv", " caption , file\na dog,1\n", ["a dog"]),
        # Spreadsheets write empty columns, and rows whose fields are all empty.
        ("t.csv", "caption,file,,\na dog,1,,\n,,,\n", ["a dog", ""]),
        ("t.tsv", "caption\tfile\t\t\na dog\t1\t\t\n\t\t\t\n", ["a dog", ""]),
    ],
)
def test_tables_are_read_as_the_web_has_them(
    tmp_path: Path, name: str, content: str, captions: list[str] | None
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    expected = captions or ['"red dress', "a boat", 'says woof"', "a kite"]
    assert [row["caption"] for row in read_rows(tmp_path / name, ["caption"])] == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_tables_are_read_in_every_encoding_that_has_a_mark(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("le") else ""
    (tmp_path / "t.csv").write_bytes(f"{mark}caption\nein Hündchen\n".encode(encoding))
    assert [row["caption"] for row in read_rows(tmp_path / "t.csv", ["caption"])] == ["ein Hündchen"]


@pytest.mark.parametrize("name", ["results.csv", "results.token", "results"])
def test_a_delimiter_is_an_argument(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('image_name| number| comment\n1.jpg| 0| "Two" dogs , one cat .\n2.jpg| 4   A dog .\n')
    assert list(read_rows(tmp_path / name, ["comment"], delimiter="|")) == [
        {"image_name": "1.jpg", "number": " 0", "comment": ' "Two" dogs , one cat .'},
        {"image_name": "2.jpg", "number": " 4   A dog .", "comment": None},
    ]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_tables_without_delimiters_refuse_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*delimiter ','"):
        list(read_rows(write(tmp_path, name), ["id"], delimiter=","))


def test_a_quotation_mark_that_swallows_rows_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('caption,file\na dog,1\n"red dress,2\na boat,3\nsays woof",4\n')
    rows = read_rows(tmp_path / "t.csv", ["caption"])
    assert next(rows) == {"caption": "a dog", "file": "1"}
    with pytest.raises(ValueError, match=r"t\.csv.*line 3\b.*line 5\b"):
        next(rows)


def test_a_quotation_mark_that_is_never_closed_is_found_before_all_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'caption\n"a dog\n' + b"a cat\n" * 50_000 + b"\xff")
    with pytest.raises(ValueError, match=r"quotation mark.*line 2\b"):
        list(read_rows(tmp_path / "t.csv", ["caption"]))


def test_lines_end_where_people_ended_them(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeffa\u2028dog\x85\r\n\ncaf\u00e9\x0b \rlast".encode())
    assert read_lines(tmp_path / "t.txt") == ["a\u2028dog\x85", "", "café\x0b ", "last"]


@pytest.mark.parametrize("value", [7, 1.5, True, b"a dog", ["a dog"], {"raw": "a dog"}])
def test_what_is_no_text_is_named_by_row_and_column(value: object) -> None:
    with pytest.raises(ValueError, match=r"t\.jsonl, record 3,.*'caption'"):
        take_text(value, "t.jsonl, record 3,", "caption")


def test_keys_may_be_whole_numbers_and_nothing_else() -> None:
    assert [take_key(value, "t", "id") for value in (" a ", 7, None)] == ["a", "7", ""]
    for value in (True, 1.0, [7]):
        with pytest.raises(ValueError, match=r"\bt\b.*'id'"):
            take_key(value, "t", "id")


_LETTERS = st.text(alphabet='a ,"\n\r\t\u2028', max_size=8)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(_LETTERS, _LETTERS), min_size=1, max_size=4))
def test_what_a_writer_of_csv_wrote_is_read_as_it_was_or_refused(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("caption", "file"), *rows])
    try:
        found = [tuple(row.values()) for row in read_rows(tmp_path / "t.csv", ["caption"])]
    except ValueError as error:
        assert "ambiguous" in str(error)  # noqa: PT017 - refused only with this message
    else:
        assert found == rows


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(alphabet='a ,"\u2028', min_size=1, max_size=8), min_size=1, max_size=4))
def test_every_line_of_tsv_is_a_row(tmp_path: Path, captions: list[str]) -> None:
    lines = [f"{caption}\t{number}\n" for number, caption in enumerate(captions)]
    (tmp_path / "t.tsv").write_bytes("".join(["caption\tfile\n", *lines]).encode())
    for row, caption in zip(read_rows(tmp_path / "t.tsv", ["caption"]), captions, strict=True):
        assert row["caption"] in (caption, caption[1:-1].replace('""', '"'))
