"""Private APIs of torch; checked with 2.15."""

from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.distributed_c10d import Store, _get_default_store

StorageInfo = _StorageInfo
"""Location of one piece of a tensor in a sharded checkpoint: file, offset, length.

``FileSystemReader`` expects it in the index of every sharded checkpoint that torch writes, and torch exports no other
name for it.
"""


def default_store() -> Store:
    """Return the key-value store of the default process group.

    Calls ``_get_default_store``; torch has no public way to the store that ``init_process_group`` made, and another one
    would need an address and a port of its own.
    """
    return _get_default_store()
