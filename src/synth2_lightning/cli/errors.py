"""Error messages and exit codes."""

import argparse
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from rich.text import Text

from synth2_lightning.io.console import MessageConsole, visible
from synth2_lightning.io.extras import require_extra

REFUSED, WRONG_WORDS, STOPPED_BY_USER = 1, 2, 130
"""Exit codes; the last is the shell's code of SIGINT."""

_OF_DISKS = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_OF_PATHS = _OF_DISKS | {
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.EBUSY),
}
"""Errors of a disk or folder that are reported for any library; the second set only with a path."""
_NOISE = (
    r"LightningCLI's args parameter",  # the arguments were parsed before, for names of included run files
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6.6 with torch 2.15
    r"Total length of `\w+` across ranks is zero",  # no validation data, or nothing left to predict
    r"Found \d+ module\(s\) in eval mode",  # frozen networks are in eval mode on purpose
    r"Precision .* is not supported by the model summary",
)
_NOISY_INFO = ("💡 Tip:", "TPU available: False")  # advertisements of Lightning, hardware that is not there


class UsageError(Exception):
    """Unknown command, unknown option or invalid value on the command line; the exit code is 2."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Context manager that prints the messages of this package's errors; all others keep their traceback.

    Raises:
        SystemExit: With exit code 1, 2 for usage errors, or 130 after Ctrl-C.

    Example:
        >>> with report_errors():
        ...     raise UsageError("There is no command 'fitt'.")
        Traceback (most recent call last):
        SystemExit: 2
    """
    try:
        yield
    except UsageError as error:
        _print_error(str(error))
        sys.exit(WRONG_WORDS)
    except argparse.ArgumentError as error:  # of the run files' parser
        sys.stderr.write(visible(f"error: {error}\n"))
        sys.exit(WRONG_WORDS)
    except KeyboardInterrupt:
        MessageConsole(stderr=True).print("Stopped.")
        sys.exit(STOPPED_BY_USER)
    except Exception as error:
        message = message_for_user(error)
        if message is None or os.environ.get("SYNTH2_TRACEBACK"):
            raise
        _print_error(message)
        sys.exit(REFUSED)


def message_for_user(error: Exception) -> str | None:
    """Return the message if this package raised the error or its cause; ``None`` if the user cannot correct it.

    Example:
        >>> message_for_user(KeyError("a mistake in the code")) is None
        True
    """
    text, name = str(error), type(error).__name__
    if "in DataLoader worker process" in text:  # torch re-raises it here, with the worker's traceback in the text
        frames, _, message = text.rpartition(f"\n{name}: ")
        return message.strip() if "synth2_lightning" in frames.rpartition("File ")[2] else None
    cause: BaseException | None = error  # jsonargparse wraps what a constructor raises
    while cause is not None:
        raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(cause.__traceback__)]
        place = raised_in[-1] if raised_in else ""
        if place.endswith(".configuration_validator"):  # `fit` with a run file of `predict`
            return f"The command does not match its run file. Lightning reports: {cause}"
        if place.startswith("jsonargparse.") and (missing := re.search(r"Requirement .* not met\..*", str(cause))):
            return f"A setting needs a package that is not installed. {missing[0]}"
        is_refusal = place.startswith("lightning.") and isinstance(cause, ValueError | RuntimeError | ImportError)
        is_refusal |= place.startswith("lightning.fabric.accelerators.")  # with TypeError, as of devices=-1 on a CPU
        if is_refusal or type(cause).__name__ == "MisconfigurationException":
            return f"The trainer's settings are inconsistent. Lightning reports: {str(cause).strip()}"
        if isinstance(cause, OSError) and (explanation := _explain_disk(cause, place)) is not None:
            return explanation
        is_for_users = isinstance(cause, ValueError | TypeError | OSError | FloatingPointError)
        if (is_for_users and place.startswith("synth2_lightning.")) or place == require_extra.__module__:
            return " ".join([str(cause), *getattr(cause, "__notes__", [])])
        cause = cause.__cause__ or cause.__context__
    return None


def suggest(name: str, known: Collection[str]) -> str:
    """Return a question that suggests a similar known name; empty if there is none.

    Example:
        >>> suggest("fitt", ["fit", "test"])
        " Did you mean 'fit'?"
    """
    close = get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def hide_noise() -> None:
    """Hide warnings and messages of Lightning that the user cannot act on."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_noise)


def _is_no_noise(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOISY_INFO)


def _print_error(message: str) -> None:
    MessageConsole(stderr=True).print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)


def _explain_disk(error: OSError, place: str) -> str | None:
    """Return a message for an error of a folder, a file or a disk; ``None`` for other errors."""
    if place == "tempfile" and error.filename is None:
        return f"{error.strerror}. Expected a writable folder with free space: set TMPDIR to one."
    if error.errno not in (_OF_DISKS if error.filename is None else _OF_PATHS):
        return None
    what = "The output of this command" if error.filename is None else error.filename
    return (
        f"{what} cannot be read or written: {error.strerror}. Expected a file or folder with the permissions and free "
        "space that this needs. Start the command in another folder, name another one to write to (--out, or the run "
        "file's save_dir and default_root_dir), or free space."
    )
