"""Copies between host and device for which the host does not wait."""

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; to a GPU it is copied from page-locked memory, without waiting.

    A copy from other memory waits until the GPU has finished all earlier work. Copies to Apple's GPUs are waited for:
    they would read the memory of the host later, when it may have other values (pytorch/pytorch#83015).

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    pinned = values.pin_memory() if device.type == "cuda" and not values.is_cuda else values
    return pinned.to(device, non_blocking=device.type != "mps")


class HostCopy:
    """A copy of a device's tensor to the host. From a GPU of CUDA it is only started; reading it waits for its end.

    Args:
        values: A tensor that is not changed afterwards.

    Example:
        >>> HostCopy(torch.ones(2)).read()
        [1.0, 1.0]
    """

    def __init__(self, values: Tensor) -> None:
        # Only CUDA has the event to wait for.
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        self._copied = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def read(self) -> list[float]:
        """Return the values."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._values.tolist()
        return values
