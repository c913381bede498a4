"""Prefix conditioning: visual tokens are embeddings before those of the text."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.compat.torch import checkpoint_activations
from synth2_lightning.compat.transformers import attention_implementation
from synth2_lightning.decoders.blocks import find_lm_blocks
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.visual_context import VisualContext, activate


class PrefixDecoder(CausalDecoder):
    """Prepends visual tokens to the embeddings of the text (Frozen, arXiv 2106.13884; ClipCap, arXiv 2111.09734).

    A trained LayerNorm scales the visual tokens to the standard deviation of the model's token embeddings, which ranges
    from 0.02 to 30 between models. A frozen model cannot adapt to embeddings of another scale.

    The arguments are those of :class:`~synth2_lightning.decoders.causal.CausalDecoder`. The order of the input is:
    visual tokens, prompt, caption.
    """

    def attach(self, lm: Any) -> None:
        """Initialize the scale of the visual tokens; checkpoint the activations of the blocks if that is set."""
        self.norm = nn.LayerNorm(self.embed_dim).to(lm.device)
        nn.init.constant_(self.norm.weight, _embedding_scale(lm))
        if self.checkpoint_activations:
            for block in find_lm_blocks(lm, lm.config.get_text_config().num_hidden_layers):
                checkpoint_activations(block)

    def visual_context(self, visual: Float[Tensor, "batch latents width"]) -> AbstractContextManager[VisualContext]:
        """Return a context whose prefix is the normalized visual tokens."""
        return activate(VisualContext(self.norm(visual), visual))

    def token_attention(
        self, embeds: Float[Tensor, "batch length width"], num_before: int
    ) -> Float[Tensor, "batch positions latents"]:
        """Return the attention of each token to the visual tokens: the mean over layers and heads; rows sum to one.

        Raises:
            TypeError: If the language model returns no attention weights.
        """
        implementation = attention_implementation(self.lm)
        self.lm.set_attn_implementation("eager")  # the only kernel that returns its weights
        try:
            layers = self.lm(inputs_embeds=embeds, use_cache=False, output_attentions=True).attentions
        finally:
            self.lm.set_attn_implementation(implementation)
        if not layers or any(layer is None for layer in layers):
            raise TypeError(
                f"{type(self.lm).__name__} returned no attention weights; expected a language model of transformers "
                "that has attention in every block and supports output_attentions."
            )
        weights = torch.stack([layer[:, :, num_before:, :num_before].float().mean(1) for layer in layers]).mean(0)
        return weights / weights.sum(-1, keepdim=True)


@torch.no_grad()
def _embedding_scale(lm: Any) -> float:
    # Computed by the layer and not from its weight: some models scale embeddings in its forward pass.
    embeddings = lm.get_input_embeddings()
    ids = torch.arange(0, embeddings.num_embeddings, max(1, embeddings.num_embeddings // 1024))
    return float(embeddings(ids.to(embeddings.weight.device)).float().std())
