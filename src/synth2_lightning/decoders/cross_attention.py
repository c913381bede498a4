"""Gated cross-attention: layers between the blocks of a language model attend to visual tokens."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synth2_lightning.compat.torch import checkpoint_activations
from synth2_lightning.decoders.blocks import BlockWrapper, find_lm_blocks
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.language_model import LanguageModelSource
from synth2_lightning.decoders.visual_context import VisualContext, activate, active_context
from synth2_lightning.nn.gated_attention import GatedCrossAttention


class CrossAttentionDecoder(CausalDecoder):
    """Inserts gated cross-attention before blocks of the language model (Flamingo, arXiv 2204.14198).

    The gates are initialized to zero, so that at step 0 the logits are those of the language model alone.

    Args:
        language_model: Builds the language model. Modules without trainable weights stay in ``eval()``.
        cross_attn_every_n_layers: With n, cross-attention precedes every n-th block: all with 1, and the last if the
            number of blocks is a multiple of n.
        num_heads: Heads of the cross-attention.
        head_dim: Channels of a head.
        prompt: See :class:`~synth2_lightning.decoders.causal.CausalDecoder`.
        max_text_tokens: See :class:`~synth2_lightning.decoders.causal.CausalDecoder`.
        checkpoint_activations: See :class:`~synth2_lightning.decoders.causal.CausalDecoder`.

    Raises:
        ValueError: If ``cross_attn_every_n_layers`` is below one, or above the number of blocks.
    """

    def __init__(
        self,
        language_model: LanguageModelSource,
        cross_attn_every_n_layers: int = 4,
        num_heads: int = 8,
        head_dim: int = 64,
        prompt: str = "",
        max_text_tokens: int | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(language_model, prompt, max_text_tokens, checkpoint_activations)
        self.num_blocks: int = language_model.config.get_text_config().num_hidden_layers
        if not 1 <= cross_attn_every_n_layers <= self.num_blocks:
            raise ValueError(
                f"CrossAttentionDecoder.cross_attn_every_n_layers is {cross_attn_every_n_layers}; expected 1 to "
                f"{self.num_blocks}, the number of blocks of the language model. With another value no block has "
                "cross-attention."
            )
        self.cross_attn_every_n_layers = cross_attn_every_n_layers
        self.num_heads = num_heads
        self.head_dim = head_dim

    def attach(self, lm: Any) -> None:
        """Insert the gated cross-attention; checkpoint the other blocks if that is set."""
        scales = _hidden_state_scales(lm)
        blocks = find_lm_blocks(lm, self.num_blocks)
        for index, block in enumerate(blocks):
            if (index + 1) % self.cross_attn_every_n_layers == 0:
                layer = GatedCrossAttention(
                    self.embed_dim, self.embed_dim, self.num_heads, self.head_dim, max(1.0, scales[index])
                )
                blocks[index] = GatedBlock(layer.to(lm.device), block, self.checkpoint_activations)
            elif self.checkpoint_activations:
                checkpoint_activations(block)

    def visual_context(self, visual: Float[Tensor, "batch latents width"]) -> AbstractContextManager[VisualContext]:
        """Return a context in which the cross-attention attends to the visual tokens; its prefix is empty."""
        return activate(VisualContext(visual[:, :0], visual))

    def token_attention(
        self, embeds: Float[Tensor, "batch length width"], num_before: int
    ) -> Float[Tensor, "batch positions latents"]:
        """Return the attention of each token to the visual tokens, layers weighted by their gates; rows sum to one.

        Raises:
            TypeError: If all gates are zero.
        """
        of_layers: list[Tensor] = []

        def record(layer: GatedCrossAttention, inputs: tuple[Any, ...]) -> None:
            hidden_states, visual, *_ = inputs
            of_layers.append(layer.attn_gate.tanh().abs() * layer.weights(hidden_states, visual))

        layers = [part for part in self.lm.modules() if isinstance(part, GatedCrossAttention)]
        handles = [layer.register_forward_pre_hook(record) for layer in layers]
        try:
            self.lm(inputs_embeds=embeds, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        weights = torch.stack(of_layers).sum(0)[:, num_before:]
        if not weights.any():
            raise TypeError(
                f"All {len(layers)} gates of the CrossAttentionDecoder are zero, so no token attends to the image. "
                "Expected a trained decoder."
            )
        return weights / weights.sum(-1, keepdim=True)


class GatedBlock(BlockWrapper):
    """A block of a language model preceded by gated cross-attention to the active :class:`VisualContext`."""

    def __init__(self, layer: GatedCrossAttention, block: nn.Module, checkpoint_activations: bool) -> None:
        super().__init__(block)
        self.gated_cross_attn_layer = layer
        self.checkpoint_activations = checkpoint_activations

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the cross-attention and the block, but not the access to the visual context before them."""
        self.gated_cross_attn_layer.compile(*args, **kwargs)
        self.decoder_layer.compile(*args, **kwargs)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Apply the cross-attention, then the block with its own arguments.

        Raises:
            RuntimeError: If there is no active visual context.
        """
        context = active_context()
        keys_values = None if torch.is_grad_enabled() else context.keys_values(self.gated_cross_attn_layer.attn)
        if keys_values is None and self.checkpoint_activations:
            # An argument, because no context is active when the backward pass recomputes the block.
            return checkpoint(self._run, hidden_states, context.visual, None, *args, use_reentrant=False, **kwargs)
        return self._run(hidden_states, context.visual, keys_values, *args, **kwargs)

    def _run(
        self,
        hidden_states: Tensor,
        visual: Tensor,
        keys_values: tuple[Tensor, Tensor] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        return self.decoder_layer(self.gated_cross_attn_layer(hidden_states, visual, keys_values), *args, **kwargs)


@torch.no_grad()
def _hidden_state_scales(lm: Any) -> list[float]:
    # Of the input of each block, over tokens from the whole vocabulary. The median, because a few channels and the
    # first position may be a hundred times larger than the rest.
    vocabulary = lm.get_input_embeddings().num_embeddings
    ids = torch.arange(0, vocabulary, max(1, vocabulary // 16), device=lm.device)[None, :16]
    was_training = lm.training
    mask = torch.ones_like(ids)  # without one, transformers warns of ids that may be padding
    states = lm.eval()(ids, attention_mask=mask, use_cache=False, output_hidden_states=True).hidden_states
    lm.train(was_training)
    return [float(state[:, 1:].float().abs().median()) for state in states]
