"""Private APIs of torch; checked with 2.7 and 2.15."""

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

StorageInfo = _StorageInfo
"""Location of one piece of a tensor in a sharded checkpoint: file, offset, length.

``FileSystemReader`` expects it in the index of every sharded checkpoint that torch writes, and torch exports no other
name for it.
"""


def clone_default_store() -> Store:
    """Return a second connection to the key-value store of the default process group.

    Calls ``_get_default_store``; torch has no public way to the store that ``init_process_group`` made, and another one
    would need an address and a port of its own. ``Store.clone`` is newer than torch 2.7, where the store is that of an
    address (``tcp://`` or ``env://``).
    """
    store = _get_default_store()
    if hasattr(store, "clone"):
        return store.clone()
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    assert isinstance(store, TCPStore)
    return TCPStore(store.host, store.port, is_master=False, wait_for_workers=False)
