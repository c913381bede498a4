"""Commands of the documents: bash parses them, and every ``synth2`` command has valid options and settings."""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.cli.arguments import make_parser
from synth2_lightning.cli.commands.init import init
from synth2_lightning.cli.main import COMMANDS
from synth2_lightning.cli.trainer import TRAINER_COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for folder in ("", "docs", "benchmarks", "configs") for path in (ROOT / folder).glob("*.md"))


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def read_commands() -> Iterator[tuple[str, ...]]:
    for document in DOCUMENTS:
        for line in "".join(code_blocks(document, "bash")).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "synth2" in words:
                yield tuple(words[words.index("synth2") + 1 :])


SYNTH2 = sorted(set(read_commands()))
ALSO_WRITTEN = (
    ("fit", "--config", "mine/writer.yaml"),
    ("predict", "--config", "mine/captions.yaml", "--config", "mine/captions_writer.yaml"),
)
"""Commands for the files of `synth2 init --synthetic` that the documents name without a command."""


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the files of the user in the documents: a package, overlays, and run files of `synth2 init`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    extending = ROOT / "docs" / "extending.md"
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "encoder.py").write_text(code_blocks(extending, "python")[0])
    filters = (ROOT / "configs" / "filters" / "captions.yaml").read_text("utf-8")
    (tmp_path / "my_filters.yaml").write_text(f"{filters}- class_path: own_filter.DigitFilter\n")
    (heredoc,) = re.findall(r"cat > questions.yaml <<YAML\n(.*?)^YAML", extending.read_text("utf-8"), re.M | re.S)
    (tmp_path / "questions.yaml").write_text(heredoc)
    (overlay,) = code_blocks(ROOT / "docs" / "your_own_images.md", "yaml")
    (tmp_path / "my_photos.yaml").write_text(overlay)
    (tmp_path / "my_photos").mkdir()
    (tmp_path / "my_photos" / "photos.yaml").write_text(overlay)  # of `synth2 init`
    photos = tmp_path / "data" / "mine"
    photos.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (8, 8)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text("a dog\na dog\n")
    init("data/mine", out=Path("mine"), synthetic=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_bash_reads_the_commands(document: Path) -> None:
    commands = "".join(code_blocks(document, "bash"))
    checked = subprocess.run(["bash", "-n"], input=commands, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_documents_have_commands_of_every_kind() -> None:
    assert {words[0] for words in SYNTH2} > {"fit", "predict", "test", "caption", "score", "export", "report", "select"}


@pytest.mark.parametrize("words", [words for words in SYNTH2 if words[0] not in TRAINER_COMMANDS], ids=" ".join)
def test_commands_have_valid_arguments(words: Sequence[str]) -> None:
    assert make_parser(COMMANDS[words[0]]).parse_command(words[1:])


@pytest.mark.slow
@pytest.mark.usefixtures("own_files")
@pytest.mark.parametrize(
    "words", [words for words in (*SYNTH2, *ALSO_WRITTEN) if words[0] in TRAINER_COMMANDS], ids=" ".join
)
def test_commands_have_valid_settings(words: Sequence[str], parse: Callable[[Sequence[str]], None]) -> None:
    words = [word.removeprefix("configs/") for word in words if word != "--print_config"]
    words = [word.replace("RUN/config.yaml", "mixed.yaml") for word in words]
    for path in (Path(word) for word in words if word.endswith(".ckpt") and not word.startswith("--")):
        path.parent.mkdir(parents=True)
        path.touch()
    parse(words)
