"""``synth2 cache``."""

from datetime import datetime

from rich.table import Table
from rich.text import Text

from synth2_lightning.io.console import MessageConsole


def cache(*, clear: bool = False) -> None:
    """List or delete cached downloads from URLs such as s3://BUCKET/PATH.

    The cache is in $SYNTH2_CACHE (default: ~/.cache/synth2-lightning), and has at most $SYNTH2_CACHE_GB gigabytes
    (default: 100). The least recently used entries are deleted first, except those that a running process uses.

    Args:
        clear: Delete all entries that no running process uses.

    Example:
        synth2 cache --clear
    """
    if clear:
        _clear()
    else:
        _show()


def _show() -> None:
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


def _clear() -> None:
    from synth2_lightning.io.remote import remote_folder
    from synth2_lightning.io.remote_cache import clear

    deleted, used = clear(remote_folder())
    freed = sum(entry.num_bytes for entry in deleted)
    console = MessageConsole()
    console.print(f"Deleted {len(deleted)} entries, {freed / 1e6:.1f} MB.")
    for entry in used:
        console.print(Text(f"In use, not deleted: {entry.address}"), soft_wrap=True)
