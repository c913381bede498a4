"""The visual input of one call of a language model."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.nn.attention import CrossAttention


@dataclass
class VisualContext:
    """What a language model is conditioned on during one call of a decoder.

    Args:
        prefix: Embeddings before those of the tokens; of length 0 if the model attends to the visual tokens instead.
        visual: Visual tokens, one row per image.

    Example:
        >>> import torch
        >>> context = VisualContext(torch.zeros(3, 0, 8), torch.zeros(3, 4, 8))
        >>> context.select_images(torch.tensor([0, 2]))
        >>> len(context.visual)
        2
    """

    prefix: Float[Tensor, "batch prefix width"]
    visual: Float[Tensor, "batch latents width"]
    _keys_values: dict[CrossAttention, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def keys_values(self, attention: CrossAttention) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the visual tokens in a layer, computed once."""
        if attention not in self._keys_values:
            self._keys_values[attention] = attention.keys_values(self.visual)
        return self._keys_values[attention]

    def select_images(self, kept: Int[Tensor, " images"]) -> None:
        """Drop the images whose texts are finished.

        Args:
            kept: Indices of the images to keep. The prefix stays: its keys and values are in the key/value cache.
        """
        self.visual = self.visual[kept]
        self._keys_values = {layer: (keys[kept], values[kept]) for layer, (keys, values) in self._keys_values.items()}


# Keyword arguments of the language model would be the plainer way, but not every model passes them to its blocks (found
# in transformers 5.24: Bloom, Falcon, GPT-Neo, MPT and Mamba do not), and `generate` refuses all that `forward` does
# not name. A context variable reaches the blocks of any model, belongs to one call, and is separate in each thread.
_active: ContextVar[VisualContext | None] = ContextVar("visual_context", default=None)


@contextmanager
def activate(context: VisualContext) -> Iterator[VisualContext]:
    """Make a context the one that :func:`active_context` returns in this thread.

    Example:
        >>> import torch
        >>> with activate(VisualContext(torch.zeros(2, 0, 8), torch.zeros(2, 4, 8))):
        ...     active_context().visual.shape
        torch.Size([2, 4, 8])
    """
    token = _active.set(context)
    try:
        yield context
    finally:
        _active.reset(token)


def active_context() -> VisualContext:
    """Return the visual context of the current call.

    Raises:
        RuntimeError: If the language model is called outside a visual context.
    """
    context = _active.get()
    if context is None:
        raise RuntimeError(
            "The language model of a CrossAttentionDecoder was called without visual tokens. Expected a call of the "
            "decoder's loss() or generate(), or a call of the model inside `with decoder.visual_context(visual):`."
        )
    return context
