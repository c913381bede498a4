"""Commands ``fit``, ``validate``, ``test`` and ``predict``, until Lightning is imported."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from synth2_lightning.cli.arguments import check_options
from synth2_lightning.cli.errors import UsageError
from synth2_lightning.cli.makers import find_maker
from synth2_lightning.cli.run_files import find_run_files, split_trust
from synth2_lightning.io.locations import MissingLocationError
from synth2_lightning.io.paths import check_not_special, expand_home

if TYPE_CHECKING:
    from synth2_lightning.cli.lightning_cli import CommandLine

TRAINER_COMMANDS = {
    "fit": "Train what a run file describes, such as a captioner, a codebook or a generator.",
    "validate": "Score a checkpoint on the validation split.",
    "test": "Score a checkpoint on the test split.",
    "predict": "Write data: token shards from images or captions, generated captions, or scores.",
}
OPTIONS = {
    *("--ckpt_path", "--config", "--data", "--help", "--model", "--print_config", "--resume_with_changes"),
    *("--return_predictions", "--seed_everything", "--trainer", "--trust", "--verbose", "--weights_only"),
}
"""Options of trainer commands, up to the first dot; listed here to refuse unknown ones before Lightning is imported."""
_NOT_IN_RUN_FILES = {"--config", "--help", "--print_config", "--trust"}
_KEYS = sorted(option.removeprefix("--") for option in OPTIONS - _NOT_IN_RUN_FILES)
_FIRST_RUN_FILES = {
    "fit": "mixed.yaml",
    "validate": "mixed.yaml --ckpt_path best",
    "test": "mixed.yaml --ckpt_path best",
    "predict": "tokenize.yaml",
}


def run_trainer(words: Sequence[str]) -> "CommandLine":
    """Run ``fit``, ``validate``, ``test`` or ``predict``, and return the finished command line with its trainer.

    Args:
        words: Arguments of the command line, starting with the command.

    Raises:
        UsageError: If an option is unknown, or there is no run file.
        FileNotFoundError: If a run file or a checkpoint is missing.
        ValueError: If a run file, a checkpoint, or settings are refused.

    Example:
        >>> run_trainer(["fit", "--confg", "mixed.yaml"])  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        UsageError: There is no option '--confg'. Did you mean '--config'? See synth2 fit --help.
    """
    # These checks come before the imports, which take seconds.
    check_options(words[1:], OPTIONS, f"synth2 {words[0]}")
    for option, word in pairwise(words):
        follows_option = option.startswith("-") and "=" not in option
        if word.endswith((".yaml", ".yml")) and not word.startswith("-") and not follows_option:
            raise UsageError(f"{word!r} follows no option; expected a run file after --config: --config {word}")
    if not any(re.match(r"(--(config|model|data|help)|-c|-h)\b", word) for word in words):
        first = _FIRST_RUN_FILES[words[0]]
        raise UsageError(f"synth2 {words[0]} needs a run file. Start with: synth2 {words[0]} --config {first}")
    words = [_expand_home(word) for word in words]
    _check_checkpoint(words)
    words, trust = split_trust(words)
    words = find_run_files(words, _KEYS)
    from synth2_lightning.cli.lightning_cli import run_lightning

    try:
        return run_lightning(words, trust)
    except Exception as error:
        _name_maker(error, words)
        raise


def _name_maker(error: Exception, words: Sequence[str]) -> None:
    """Add the command that writes a missing location to the error that reports it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MissingLocationError) and (maker := find_maker(cause.location, words)):
            cause.add_note(maker)
        cause = cause.__cause__ or cause.__context__


def _expand_home(word: str) -> str:
    """Expand ``~`` in ``--config=~/my.yaml`` and ``--ckpt_path=~/last.ckpt``, which shells leave as it is."""
    option, separator, value = word.partition("=")
    return f"{option}={expand_home(value)}" if separator and option in ("--config", "--ckpt_path") else word


def _check_checkpoint(words: Sequence[str]) -> None:
    """Raise on a checkpoint that does not exist, before the model is built."""
    for position, word in enumerate(words):
        if not word.startswith("--ckpt_path"):
            continue
        name = word.partition("=")[2] if "=" in word else "".join(words[position + 1 : position + 2])
        if not name or name in ("best", "last", "hpc", "null") or "://" in name:
            continue
        if not check_not_special(Path(name)).exists():
            if Path(name).is_symlink():
                raise FileNotFoundError(
                    f"The checkpoint {name!r} links to {Path(name).readlink()}, which does not exist: the run was "
                    "killed before that file was complete. Expected a complete checkpoint. Use --ckpt_path=last, which "
                    "finds the newest one, or name one of the same folder."
                )
            raise FileNotFoundError(
                f"There is no checkpoint at {name!r} ({Path(name).absolute()}). Expected a file such as "
                "runs/version_0/checkpoints/last.ckpt, or 'last' or 'best'."
            )
