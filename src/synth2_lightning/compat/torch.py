"""Private APIs of torch; checked with 2.7 and 2.15."""

from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed._composable.checkpoint_activation import checkpoint
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store
from torch.nn.parallel import DistributedDataParallel

StorageInfo = _StorageInfo
"""Location of one piece of a tensor in a sharded checkpoint: file, offset, length.

``FileSystemReader`` expects it in the index of every sharded checkpoint that torch writes, and torch exports no other
name for it.
"""


def keep_buffers(module: nn.Module) -> None:
    """Make DDP leave all buffers of a module as they are, instead of broadcasting those of rank 0 in every step.

    Sets the attribute of ``DistributedDataParallel._set_params_and_buffers_to_ignore_for_model``. The public argument
    ``broadcast_buffers`` would have to be set in every script.

    Args:
        module: The module, before it is wrapped; its buffers are equal on all ranks, or need not be.
    """
    names = [name for name, _ in module.named_buffers(remove_duplicate=False)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


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


def checkpoint_activations(module: nn.Module) -> None:
    """Make a module recompute its activations in the backward pass, by hooks that leave its names as they are.

    Calls ``torch.distributed._composable.checkpoint_activation.checkpoint``. With ``torch.utils.checkpoint``, a module
    of another library needs a wrapper, so that names of weights in checkpoints would depend on the setting. The
    gradient checkpointing of transformers is off in ``eval()``, the mode of a frozen language model.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> checkpoint_activations(layer)
        >>> list(layer.state_dict())
        ['weight', 'bias']
    """
    checkpoint(module)
