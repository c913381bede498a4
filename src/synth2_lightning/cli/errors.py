"""Which errors are printed as messages, and the exit codes."""

import argparse
import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from synth2_lightning.io.console import MessageConsole, visible
from synth2_lightning.io.extras import require_extra

REFUSED, WRONG_WORDS, STOPPED_BY_USER = 1, 2, 130
"""Exit codes; the last is that of shells for Ctrl-C."""

_OF_DISKS = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_OF_PATHS = _OF_DISKS | {
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.EBUSY),
}
"""Errors of a folder or a disk, whichever library wrote there; the second set only with a path."""
_NOISE = (
    r"LightningCLI's args parameter",  # the words were read before, for names of shipped run files
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6.6 with torch 2.15
    r"Total length of `\w+` across ranks is zero",  # nothing to validate on, or nothing left to predict
    r"Found \d+ module\(s\) in eval mode",  # frozen parts are meant to be
    r"Precision .* is not supported by the model summary",
)


class UsageError(Exception):
    """Words of the command line that are no command, no option or no such value; the exit code is 2."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Print the messages of errors that this package raises on purpose; let all others show their traceback.

    Raises:
        SystemExit: With exit code 1, or 2 if the words of the command line are wrong, or 130 after Ctrl-C.

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
    """Return the message if this package raised the error, or one that caused it, for the user to read.

    Args:
        error: With its traceback.

    Returns:
        The message; ``None`` for errors that no user can act on.

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
            return f"The command does not fit its run file. Lightning says: {cause}"
        if place.startswith("jsonargparse.") and (missing := re.search(r"Requirement .* not met\..*", str(cause))):
            return f"A setting needs a package that is not installed here. {missing[0]}"
        is_refusal = place.startswith("lightning.") and isinstance(cause, ValueError | RuntimeError | ImportError)
        if is_refusal or type(cause).__name__ == "MisconfigurationException":
            return f"The trainer's settings do not fit together. Lightning says: {str(cause).strip()}"
        if isinstance(cause, OSError) and (explanation := _explain_disk(cause, place)) is not None:
            return explanation
        is_for_users = isinstance(cause, ValueError | TypeError | OSError | FloatingPointError)
        if (is_for_users and place.startswith("synth2_lightning.")) or place == require_extra.__module__:
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def hide_noise() -> None:
    """Hide warnings that no user can act on.

    Example:
        >>> hide_noise()
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)


def _print_error(message: str) -> None:
    MessageConsole(stderr=True).print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)


def _explain_disk(error: OSError, place: str) -> str | None:
    """Explain an error of a folder, a file or a disk; ``None`` for other errors of the operating system."""
    if place == "tempfile" and error.filename is None:
        return f"{error.strerror}. Expected a folder that this user may write to, with room left: name it in TMPDIR."
    if error.errno not in (_OF_DISKS if error.filename is None else _OF_PATHS):
        return None
    what = "What this command writes" if error.filename is None else error.filename
    return (
        f"{what} cannot be written, or not be read: {error.strerror}. Expected a file or folder that this user may use "
        "so, on a disk with room left. Start the command in another folder, name another one to write to (--out, or "
        "the run file's save_dir and default_root_dir), or free some room."
    )
