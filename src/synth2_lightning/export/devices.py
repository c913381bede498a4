"""Devices of a captioner."""

import torch


def best_device() -> torch.device:
    """Return the accelerator if there is one, or else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found if found is not None else torch.device("cpu")


def check_device(device: torch.device | str) -> torch.device:
    """Return a device.

    Raises:
        ValueError: If it is not available.

    Example:
        >>> check_device("cpu")
        device(type='cpu')
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises different types
        raise ValueError(
            f"The device {str(device)!r} is not available: {str(error).splitlines()[0]} Expected 'cpu' or an "
            "accelerator that torch finds, such as 'cuda'. Omit it to use the accelerator if there is one."
        ) from error


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether a captioner computes in bfloat16 on a device."""
    # Not on CPUs, even with bfloat16: rounded features are quantized to other codes, and captions change.
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))
