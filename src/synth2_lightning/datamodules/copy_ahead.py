"""Copies of batches to a GPU while it computes."""

from collections.abc import Iterable, Iterator

import torch

from synth2_lightning.datamodules.pairs import Batch


def copy_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a GPU; each is copied while the one before is computed.

    The copies run on a stream of their own, and overlap with computation if the batches are in page-locked memory.

    Args:
        batches: Batches of the host; one more is read than was yielded.
        device: Where batches are needed. If it is not a GPU, they are yielded as they are.

    Example:
        >>> from synth2_lightning.testing import tiny_batch
        >>> len(list(copy_ahead([tiny_batch()] * 3, torch.device("cpu"))))
        3
    """
    if device.type != "cuda":
        yield from batches
        return
    copies, computation = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        # The copy may take the memory of a batch that was yielded earlier and is no longer referenced. Its last use is
        # in the computations that are queued by now.
        copies.wait_stream(computation)
        with torch.cuda.stream(copies):
            copy = batch.to(device, non_blocking=True), copies.record_event()
        if waiting is not None:
            yield _use(*waiting, computation)
        waiting = copy
    if waiting is not None:
        yield _use(*waiting, computation)


def _use(batch: Batch, copied: torch.cuda.Event, computation: torch.cuda.Stream) -> Batch:
    computation.wait_event(copied)
    return batch
