"""Cache of language model answers on disk, so that no answer is requested or paid for twice."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from synth2_lightning.io.paths import expand_home
from synth2_lightning.types import Completion

_FILE = "completions.sqlite3"
_VERSION = 1
_LOCK_TIMEOUT_SECONDS = 60.0
_TABLE = """
CREATE TABLE IF NOT EXISTS completions (
    request BLOB PRIMARY KEY, text TEXT, finish_reason TEXT, num_prompt_tokens INTEGER, num_tokens INTEGER
) WITHOUT ROWID
"""


class CompletionCache(AbstractContextManager["CompletionCache"]):
    """Completions by the fingerprint of their request, in one SQLite file.

    ``put`` commits before it returns, so that answers survive a crash of the process. Processes of one machine can
    share the file. The write-ahead log does not work on network file systems; use a local disk of each machine.

    Args:
        folder: Folder of the file; created if it does not exist.

    Raises:
        OSError: If the file cannot be opened, read or written.
        ValueError: If the file is not a cache, or is damaged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, CompletionCache(folder) as cache:
        ...     cache.put(b"request", Completion("A dog runs.", "stop", 80, 5))
        ...     cache.get(b"request").text, cache.get(b"other"), len(cache)
        ('A dog runs.', None, 1)
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = expand_home(folder) / _FILE
        with self._translate_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level=None commits after every statement.
            self._connection = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None)
        try:
            self._open()
        except Exception:
            self._connection.close()
            raise

    def get(self, request: bytes) -> Completion | None:
        """Return the completion of a request, or ``None`` if it is not cached; raises as the constructor does."""
        with self._translate_errors():
            row = self._connection.execute(
                "SELECT text, finish_reason, num_prompt_tokens, num_tokens FROM completions WHERE request = ?",
                (request,),
            ).fetchone()
        return None if row is None else Completion(*row)

    def put(self, request: bytes, completion: Completion) -> None:
        """Store a completion; if the request is already cached, keep the first one. Raises as the constructor does."""
        row = (completion.text, completion.finish_reason, completion.num_prompt_tokens, completion.num_tokens)
        with self._translate_errors():
            self._connection.execute("INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?, ?)", (request, *row))

    def __len__(self) -> int:
        """Return the number of completions."""
        with self._translate_errors():
            return int(self._connection.execute("SELECT count(*) FROM completions").fetchone()[0])

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> None:
        with self._translate_errors():
            # One transaction, because another process may be creating the table.
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
            # With a write-ahead log, NORMAL survives a crash of the process without an fsync per commit.
            self._connection.execute("PRAGMA synchronous = NORMAL")
        if not is_empty and version != _VERSION:
            raise ValueError(
                f"{self.path} is an SQLite file of version {version}; expected a completion cache of version "
                f"{_VERSION}. Set cache to another folder, or move the file away."
            )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise OSError(
                f"The completion cache {self.path} cannot be used: {error}. Expected a folder on a local disk, "
                "writable and with free space. Stored answers are safe; fix this and start the same command again."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"The completion cache {self.path} cannot be read: {error}. The file is damaged, or not a cache. "
                f"Recover its answers with `sqlite3 {_FILE} .recover`, or move the file away to request them again."
            ) from error
