"""``synth2 cache``."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from synth2_lightning.io.console import MessageConsole


def cache(*, clear: bool = False) -> None:
    """List or delete cached downloads from URLs such as s3://BUCKET/PATH, and indexes of data sets.

    The cache is in $SYNTH2_CACHE (default: ~/.cache/synth2-lightning). Downloads have at most $SYNTH2_CACHE_GB
    gigabytes (default: 100); the least recently used ones are deleted first, except those that a running process uses.
    Indexes have no limit. If they are missing, the next run makes them from the data.

    Args:
        clear: Delete all downloads that no running process uses, and all indexes.

    Example:
        synth2 cache --clear
    """
    if clear:
        _clear()
    else:
        _show()


def _show() -> None:
    from synth2_lightning.io.index_files import index_folder, list_indexes
    from synth2_lightning.io.remote import remote_folder
    from synth2_lightning.io.remote_cache import list_entries, read_limit

    console, entries = MessageConsole(), list_entries(remote_folder())
    table = Table("URL", "size", "last used", box=None)
    for entry in reversed(entries):
        used = datetime.fromtimestamp(entry.last_used).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(Text(entry.address), f"{entry.num_bytes / 1e6:.1f} MB", used)
    if entries:
        console.print(table)
    total = sum(entry.num_bytes for entry in entries)
    summary = f"{total / 1e9:.2f} GB of {read_limit() / 1e9:g} GB are taken in {remote_folder()}"
    console.print(Text(summary), soft_wrap=True)
    indexes = list_indexes()
    console.print(Text(f"{_count(indexes)} in {index_folder()}"), soft_wrap=True)


def _clear() -> None:
    from synth2_lightning.io.index_files import clear_indexes
    from synth2_lightning.io.remote import remote_folder
    from synth2_lightning.io.remote_cache import clear

    deleted, used = clear(remote_folder())
    freed = sum(entry.num_bytes for entry in deleted)
    console = MessageConsole()
    console.print(f"Deleted {len(deleted)} downloads, {freed / 1e6:.1f} MB, and {_count(clear_indexes())}.")
    for entry in used:
        console.print(Text(f"In use, not deleted: {entry.address}"), soft_wrap=True)


def _count(num_bytes: Sequence[int]) -> str:
    return f"{len(num_bytes)} indexes, {sum(num_bytes) / 1e6:.1f} MB"
