"""Visual tokens as a soft prompt: the language model reads the picture as if it were words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from synth2_lightning.decoders.blocks import CheckpointedBlock, find_blocks
from synth2_lightning.decoders.causal import CausalDecoder


class PrefixDecoder(CausalDecoder):
    """Puts visual tokens before the words (Frozen, arXiv 2106.13884; ClipCap, arXiv 2111.09734).

    A learnt LayerNorm brings the tokens to the scale of the model's word embeddings, which may be 0.02 or 30: a frozen
    model cannot read anything else.

    The arguments are those of :class:`~synth2_lightning.decoders.causal.CausalDecoder`; the prompt stands between
    picture and caption.
    """

    def fit_in(self, lm: Any) -> None:
        """Set the scale of the visual tokens to that of words."""
        self.norm = nn.LayerNorm(self.embed_dim).to(lm.device)
        nn.init.constant_(self.norm.weight, _word_scale(lm))
        if self.checkpoint_activations:
            blocks = find_blocks(lm, lm.config.get_text_config().num_hidden_layers)
            for index, block in enumerate(blocks):
                blocks[index] = CheckpointedBlock(block)

    @contextmanager
    def show(self, visual: Float[Tensor, "batch queries width"]) -> Iterator[Float[Tensor, "batch prefix width"]]:
        """Give the visual tokens to be put before the words."""
        yield self.norm(visual)

    def keep_pictures(self, kept: Int[Tensor, " pictures"]) -> None:
        """Do nothing: what was seen stands among the words."""

    def trace(
        self, embeds: Float[Tensor, "batch length width"], num_before: int
    ) -> Float[Tensor, "batch positions queries"]:
        """Say how much each word's position attends to the visual tokens, on the mean over layers and heads.

        Raises:
            TypeError: If the language model gives no attention.
        """
        chosen = self.lm.config._attn_implementation
        self.lm.set_attn_implementation("eager")  # the others do not give their weights away
        try:
            layers = self.lm(inputs_embeds=embeds, use_cache=False, output_attentions=True).attentions
        finally:
            self.lm.set_attn_implementation(chosen)
        if not layers or any(layer is None for layer in layers):
            raise TypeError(
                f"{type(self.lm).__name__} gives no attention to be looked at; expected a language model of "
                "transformers that attends in every block, and gives output_attentions."
            )
        weights = torch.stack([layer[:, :, num_before:, :num_before].float().mean(1) for layer in layers]).mean(0)
        return weights / weights.sum(-1, keepdim=True)


@torch.no_grad()
def _word_scale(lm: Any) -> float:
    # Asked of the layer, not of its weights: some models scale embeddings on their way out.
    embeddings = lm.get_input_embeddings()
    ids = torch.arange(0, embeddings.num_embeddings, max(1, embeddings.num_embeddings // 1024))
    return float(embeddings(ids.to(embeddings.weight.device)).float().std())
