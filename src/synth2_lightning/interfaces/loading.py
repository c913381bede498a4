"""Components that read their weights after construction, and frozen ones."""

from typing import TypeVar

from torch import nn

from synth2_lightning.io.recorded_specs import Component

_Frozen = TypeVar("_Frozen", bound="FrozenModule")  # beartype rejects typing.Self on methods


class Loadable(Component):
    """Base class of components that read weights, an index or a vocabulary after construction.

    ``__init__`` may read a configuration or a tokenizer, so that widths are known. Subclasses override :meth:`_load` to
    read the rest. Methods that need it raise a ``RuntimeError`` before :meth:`load`.

    Attributes:
        is_loaded: Whether :meth:`load` was successful.

    Example:
        >>> class Words(Loadable):
        ...     def _load(self) -> None:
        ...         print("reading")
        >>> words = Words()
        >>> words.load()
        reading
        >>> words.load()
    """

    is_loaded = False  # a class attribute, so that it exists without __init__

    def load(self) -> None:
        """Call :meth:`_load` once; calls after the first successful one have no effect.

        Raises:
            OSError: If a file is missing or cannot be read.
            ValueError: If its content does not match the component's arguments.
        """
        if not self.is_loaded:
            self._load()
            self.is_loaded = True

    def _load(self) -> None:
        """Read weights, an index or a vocabulary; nothing by default."""


class FrozenModule(Loadable, nn.Module):
    """Module that is never trained: no parameter requires a gradient, and it stays in evaluation mode.

    :meth:`load` freezes the loaded weights. Gradients may still flow through the module to its inputs.

    Example:
        >>> module = FrozenModule()
        >>> module.dropout = nn.Dropout(0.5)
        >>> module.load()
        >>> module.train().dropout.training
        False
    """

    def load(self) -> None:
        """Load the weights once, and freeze them."""
        super().load()
        self.requires_grad_(False).eval()

    def train(self: _Frozen, mode: bool = True) -> _Frozen:
        """Stay in evaluation mode; ``mode`` is ignored."""
        del mode
        return super().train(False)

    def requires_grad_(self: _Frozen, requires_grad: bool = True) -> _Frozen:
        """Keep all parameters frozen; ``requires_grad`` is ignored."""
        del requires_grad
        return super().requires_grad_(False)
