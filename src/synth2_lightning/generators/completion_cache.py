"""Answers of language model servers, kept on disk one by one, so that none is asked for or paid twice."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from synth2_lightning.files import expand_home
from synth2_lightning.types import Completion

_FILE = "completions.sqlite3"
_VERSION = 1
_SECONDS_TO_WAIT_FOR_OTHERS = 60.0
_TABLE = """
CREATE TABLE IF NOT EXISTS completions (
    request BLOB PRIMARY KEY, text TEXT, finish_reason TEXT, num_prompt_tokens INTEGER, num_tokens INTEGER
) WITHOUT ROWID
"""


class CompletionCache:
    """Answers by the fingerprint of their request, in one SQLite file.

    An answer is committed before ``put`` returns: it survives the end of the process, whatever ended it. Several
    processes of one machine may share the file. Its write-ahead log does not work on network file systems, so the
    folder belongs on a disk of the machine; machines may have one each.

    Args:
        folder: Where the file lies; it is made if need be.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no cache, or a damaged one.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, CompletionCache(folder) as cache:
        ...     cache.put(b"request", Completion("A dog runs.", "stop", 80, 5))
        ...     cache.get(b"request").text, cache.get(b"other"), len(cache)
        ('A dog runs.', None, 1)
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = expand_home(folder) / _FILE
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without isolation level, every statement is a transaction of its own.
            self._connection = sqlite3.connect(self.path, _SECONDS_TO_WAIT_FOR_OTHERS, isolation_level=None)
        try:
            self._open()
        except Exception:
            self._connection.close()
            raise

    def get(self, request: bytes) -> Completion | None:
        """Give the answer to a request, or ``None`` where there is none yet.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is damaged.
        """
        with self._explained():
            row = self._connection.execute(
                "SELECT text, finish_reason, num_prompt_tokens, num_tokens FROM completions WHERE request = ?",
                (request,),
            ).fetchone()
        return None if row is None else Completion(*row)

    def put(self, request: bytes, completion: Completion) -> None:
        """Keep an answer. Where two processes asked the same, the first answer stays.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If it is damaged.
        """
        row = (completion.text, completion.finish_reason, completion.num_prompt_tokens, completion.num_tokens)
        with self._explained():
            self._connection.execute("INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?, ?)", (request, *row))

    def __len__(self) -> int:
        """Number of answers."""
        with self._explained():
            return int(self._connection.execute("SELECT count(*) FROM completions").fetchone()[0])

    def __enter__(self) -> "CompletionCache":
        """Go on with it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> None:
        with self._explained():
            # One look at both: another process may be making the table right now.
            self._connection.execute("BEGIN")
            version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            is_empty = self._connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
            self._connection.execute("COMMIT")
            if is_empty:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")
                self._connection.execute("COMMIT")
            # With a write-ahead log this survives the end of the process, and costs no wait for the disk.
            self._connection.execute("PRAGMA synchronous = NORMAL")
        if not is_empty and version != _VERSION:
            raise ValueError(
                f"{self.path} is an SQLite file of version {version}; expected a cache of answers of version "
                f"{_VERSION}. Name another folder as cache, or move the file away."
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise OSError(
                f"The cache of answers {self.path} cannot be used: {error}. Expected a folder on a disk of this "
                "machine, with free space, where this user may write. What it holds is safe; start the same command "
                "again when this is mended."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"The cache of answers {self.path} cannot be read: {error}. It is damaged, or no cache. Try `sqlite3 "
                f"{_FILE} .recover` to save its answers into a new file, or move it away and have them asked for again."
            ) from error
