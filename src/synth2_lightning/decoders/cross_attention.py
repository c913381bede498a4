"""Gated cross-attention: a language model that stays as it is looks at the picture between its blocks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synth2_lightning.decoders.blocks import BlockWrapper, CheckpointedBlock, find_blocks
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.language_model import LanguageModelSource
from synth2_lightning.nn.gated_attention import GatedCrossAttention


class CrossAttentionDecoder(CausalDecoder):
    """Lets words look at visual tokens before every k-th block (Flamingo, arXiv 2204.14198).

    The gates start shut: at step 0 the language model says what it said before, whatever it is shown.

    Args:
        language_model: Where the language model comes from. What it does not learn stays in ``eval()``.
        every: k; 1 looks before every block. The last block always looks where the number of blocks is a multiple.
        num_heads: Heads of the cross-attention.
        head_dim: Channels of a head.
        prompt: What stands before captions that come without a prompt of their own.
        max_text_tokens: Cut captions after so many tokens; ``None`` cuts nothing.
        checkpoint_activations: Compute the model's blocks again in the backward pass rather than keep what they
            computed.

    Raises:
        ValueError: If ``every`` is below one, or above the number of blocks.
    """

    def __init__(
        self,
        language_model: LanguageModelSource,
        every: int = 4,
        num_heads: int = 8,
        head_dim: int = 64,
        prompt: str = "",
        max_text_tokens: int | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(language_model, prompt, max_text_tokens, checkpoint_activations)
        self.num_blocks: int = language_model.config.get_text_config().num_hidden_layers
        if not 1 <= every <= self.num_blocks:
            raise ValueError(
                f"CrossAttentionDecoder.every is {every}; expected 1 to {self.num_blocks}, the number of the language "
                "model's blocks: otherwise it would never look."
            )
        self.every = every
        self.num_heads = num_heads
        self.head_dim = head_dim

    def fit_in(self, lm: Any) -> None:
        """Put gates before every k-th block."""
        scales = _state_scales(lm)
        blocks = find_blocks(lm, self.num_blocks)
        for index, block in enumerate(blocks):
            if (index + 1) % self.every == 0:
                gate = GatedCrossAttention(
                    self.embed_dim, self.embed_dim, self.num_heads, self.head_dim, max(1.0, scales[index])
                )
                blocks[index] = GatedBlock(gate.to(lm.device), block, self.checkpoint_activations)
            elif self.checkpoint_activations:
                blocks[index] = CheckpointedBlock(block)

    @contextmanager
    def show(self, visual: Float[Tensor, "batch queries width"]) -> Iterator[Float[Tensor, "batch prefix width"]]:
        """Bind the visual tokens to the gated blocks while the context lasts; nothing stands before the words."""
        for block in self._gated_blocks():
            block.visual = visual
        try:
            yield visual[:, :0]
        finally:
            for block in self._gated_blocks():
                block.visual = block.keys_values = None

    def keep_pictures(self, kept: Int[Tensor, " pictures"]) -> None:
        """Show some of the pictures from now on."""
        for block in self._gated_blocks():
            block.keep_pictures(kept)

    def _gated_blocks(self) -> list["GatedBlock"]:
        return [part for part in self.lm.modules() if isinstance(part, GatedBlock)]

    def trace(
        self, embeds: Float[Tensor, "batch length width"], num_before: int
    ) -> Float[Tensor, "batch positions queries"]:
        """Say how much each word's position looks at the visual tokens, each layer as much as its gate is open.

        Raises:
            TypeError: If all gates are shut.
        """
        seen: list[Tensor] = []

        def note(layer: GatedCrossAttention, inputs: tuple[Tensor, ...]) -> None:
            words, visual, *_ = inputs
            seen.append(layer.attention_gate.tanh().abs() * layer.weights(words, visual))

        gates = [part for part in self.lm.modules() if isinstance(part, GatedCrossAttention)]
        handles = [gate.register_forward_pre_hook(note) for gate in gates]
        try:
            self.lm(inputs_embeds=embeds, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        weights = torch.stack(seen).sum(0)[:, num_before:]
        if not weights.any():
            raise TypeError(
                f"All {len(gates)} gates of the CrossAttentionDecoder are shut, so that no word looks at the picture; "
                "expected a decoder that was trained."
            )
        return weights / weights.sum(-1, keepdim=True)


class GatedBlock(BlockWrapper):
    """A block of a language model that looks before it thinks.

    Attributes:
        visual: What it looks at; bound for the duration of one call.
        keys_values: What the cross-attention made of it, once it is known and no gradient needs it again.
    """

    def __init__(self, cross_attention: GatedCrossAttention, block: nn.Module, checkpoint_activations: bool) -> None:
        super().__init__(block)
        self.cross_attention = cross_attention
        self.checkpoint_activations = checkpoint_activations
        self.visual: Tensor | None = None
        self.keys_values: Tensor | None = None

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Look, then run the block.

        Raises:
            RuntimeError: If there is nothing to look at.
        """
        if self.visual is None:
            raise RuntimeError(
                "The language model of a CrossAttentionDecoder was called without a picture; expected a call of the "
                "decoder's loss or generate, or of the model inside `with decoder.show(visual)`."
            )
        if not torch.is_grad_enabled():
            if self.keys_values is None:
                self.keys_values = self.cross_attention.read(self.visual)
            return self._run(hidden_states, self.visual, self.keys_values, *args, **kwargs)
        if self.checkpoint_activations:
            # An argument, since nothing is bound any more when the backward pass computes this again.
            return checkpoint(self._run, hidden_states, self.visual, None, *args, use_reentrant=False, **kwargs)
        return self._run(hidden_states, self.visual, None, *args, **kwargs)

    def keep_pictures(self, kept: Int[Tensor, " pictures"]) -> None:
        """Look at some of the pictures from now on."""
        if self.visual is not None:
            self.visual = self.visual[kept]
        if self.keys_values is not None:
            self.keys_values = self.keys_values[:, kept]

    def _run(self, hidden_states: Tensor, visual: Tensor, keys_values: Tensor | None, *args: Any, **kwargs: Any) -> Any:
        return self.block(self.cross_attention(hidden_states, visual, keys_values), *args, **kwargs)


@torch.no_grad()
def _state_scales(lm: Any) -> list[float]:
    # Hidden states before each block, for words of all kinds. The median, because a few channels and the first position
    # may be a hundred times as large as the others.
    vocabulary = lm.get_input_embeddings().num_embeddings
    ids = torch.arange(0, vocabulary, max(1, vocabulary // 16), device=lm.device)[None, :16]
    states = lm.eval()(ids, use_cache=False, output_hidden_states=True).hidden_states
    return [float(state[:, 1:].float().abs().median()) for state in states]
