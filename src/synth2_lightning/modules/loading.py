"""Loading of the components of a module, with lines in the log."""

from collections.abc import Iterator, Mapping
from time import monotonic

from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from torch import nn

from synth2_lightning.io.recorded_specs import Component


def load_components(module: nn.Module, is_logged: bool = True) -> None:
    """Load the components of a module; lines in the log name the pretrained models in them, their size and the seconds.

    Reading may take minutes: models are downloaded at their first use, and GGUF files are dequantized.

    Args:
        module: A module; its children with a method ``load`` are loaded.
        is_logged: Whether lines are logged, on rank 0.
    """
    for name, part in module.named_children():
        if not callable(load := getattr(part, "load", None)):
            continue
        described = part.recorded_arguments.described if isinstance(part, Component) else {}
        is_new = is_logged and not getattr(part, "is_loaded", False)  # an earlier stage may have loaded it
        models = ", ".join(_list_models(described)) if is_new else ""
        if models:
            rank_zero_info(f"Loading {name}: {models}.")
        start = monotonic()
        load()
        if models:
            size = get_human_readable_count(sum(weight.numel() for weight in part.parameters())).strip()
            rank_zero_info(f"Loaded {name}: {size} parameters in {monotonic() - start:.1f} s.")


def _list_models(described: object) -> Iterator[str]:
    """Yield the pretrained models in recorded arguments, except those of this package, which load immediately."""
    match described:
        case {"base_url": _}:  # a server loads the model
            return
        case Mapping():
            model, file = described.get("model"), described.get("gguf_file")
            if isinstance(model, str) and not model.startswith("package://"):
                yield f"{model}/{file}" if file else model
            for value in described.values():
                yield from _list_models(value)
        case list():
            for value in described:
                yield from _list_models(value)
