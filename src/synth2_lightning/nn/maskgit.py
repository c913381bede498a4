"""MaskGit: a bidirectional transformer that predicts masked image tokens, conditioned on text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from synth2_lightning.nn.attention import CrossAttention, KeyValueCache, SelfAttention
from synth2_lightning.nn.normalization import RMSNorm


@dataclass(frozen=True, slots=True)
class TextKeyValues:
    """Precomputed key/value cache of a text for all layers of a :class:`MaskGit`; computed once per caption."""

    keys_values: tuple[
        tuple[Float[Tensor, "batch heads text channels"], Float[Tensor, "batch heads text channels"]], ...
    ]
    mask: Bool[Tensor, "batch 1 1 text"]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.mask)


class MaskGit(nn.Module):
    """Predicts the codes of masked tokens from the unmasked tokens and a text (MUSE, arXiv 2301.00704, section 2.3).

    The inputs are the tokenizer's codebook embeddings, so that similar codes have similar inputs. Each layer applies
    self-attention, cross-attention to the text, and an MLP, with an RMSNorm before each and normalized queries and keys
    (Henry et al., arXiv 2010.04245). A token of a residual codebook has one code per level. Each level has its own
    head, conditioned on the codes of the previous levels, because codes of one token are not independent.

    Args:
        embed_dim: Width of the tokenizer's embeddings.
        codebook_size: Codes of a level.
        num_levels: Residual levels.
        grid: Rows and columns of tokens.
        text_dim: Width of the text's embeddings.
        width: Inner width.
        depth: Layers.
        num_heads: Attention heads; divides ``width``.
        dropout: Dropout probability of the output of each sublayer.
        checkpoint_activations: Recompute the layers in the backward pass instead of storing their activations.

    Attributes:
        sizes: The constructor arguments that determine weights and outputs, to save with the weights.

    Raises:
        ValueError: If ``width``, ``depth`` or ``num_heads`` is below one, or ``num_heads`` does not divide ``width``.

    Example:
        >>> net = MaskGit(6, codebook_size=16, num_levels=1, grid=(2, 2), text_dim=8, width=32, depth=2, num_heads=2)
        >>> text = net.encode_text(torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool))
        >>> net(torch.randn(3, 4, 6), torch.ones(3, 4, dtype=torch.bool), text).shape
        torch.Size([3, 4, 32])
    """

    def __init__(
        self,
        embed_dim: int,
        codebook_size: int,
        num_levels: int,
        grid: Sequence[int],
        text_dim: int,
        width: int = 256,
        depth: int = 4,
        num_heads: int = 4,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if min(width, depth, num_heads) < 1 or width % num_heads:
            raise ValueError(
                f"MaskGit was given width={width}, depth={depth} and num_heads={num_heads}; expected 1 or more of "
                "each, and a width that is a multiple of num_heads."
            )
        self.codebook_size = codebook_size
        self.num_levels = num_levels
        self.grid = (grid[0], grid[1])
        self.num_tokens = grid[0] * grid[1]
        self.checkpoint_activations = checkpoint_activations
        self.sizes: dict[str, Any] = {
            "embed_dim": embed_dim,
            "codebook_size": codebook_size,
            "num_levels": num_levels,
            "grid": list(grid),
            "text_dim": text_dim,
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "dropout": dropout,
        }
        self.input_proj = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, width))
        self.mask_token = nn.Parameter(0.5 * torch.randn(width))
        self.row_embeddings = nn.Parameter(0.5 * torch.randn(grid[0], 1, width))
        self.column_embeddings = nn.Parameter(0.5 * torch.randn(1, grid[1], width))
        self.text_norm = nn.LayerNorm(text_dim)
        self.null_text_embedding = nn.Parameter(torch.randn(text_dim))
        self.layers = nn.ModuleList(MaskGitLayer(width, text_dim, num_heads, dropout) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, codebook_size) for _ in range(num_levels))
        self.level_embeddings = nn.ModuleList(nn.Embedding(codebook_size, width) for _ in range(num_levels - 1))

    def get_output_embeddings(self) -> nn.ModuleList:
        """Return the heads, which Muon leaves to AdamW; the name is that of transformers."""
        return self.heads

    def compile_layers(self) -> None:
        """Compile the layers by ``torch.compile``; names of weights do not change.

        All layers have equal shapes and share one graph, so that compilation takes a ``depth``-th of the time that the
        whole network would take.
        """
        for layer in self.layers:
            layer.compile()

    def encode_text(
        self,
        text: Float[Tensor, "batch text dim"],
        mask: Bool[Tensor, "batch text"],
        drop_text: Bool[Tensor, " batch"] | None = None,
    ) -> TextKeyValues:
        """Compute the keys and values of texts for all layers.

        Args:
            text: Embeddings of a :class:`~synth2_lightning.interfaces.TextEncoder`.
            mask: False at padding.
            drop_text: True where the learned null text replaces the text (null conditioning, which classifier-free
                guidance needs).
        """
        text = self.text_norm(text)
        if drop_text is not None:
            first = torch.arange(text.shape[1], device=text.device) == 0
            text = torch.where(drop_text[:, None, None], self.null_text_embedding.to(text.dtype), text)
            mask = torch.where(drop_text[:, None], first, mask)
        keys_values = tuple(cast(MaskGitLayer, layer).cross_attn.keys_values(text) for layer in self.layers)
        return TextKeyValues(keys_values, mask[:, None, None, :])

    def forward(
        self,
        embeddings: Float[Tensor, "batch tokens dim"],
        mask: Bool[Tensor, "batch tokens"],
        text: TextKeyValues,
        caches: Sequence[KeyValueCache] = (),
        positions: Int[Tensor, "batch tokens"] | None = None,
        num_outputs: int | None = None,
    ) -> Float[Tensor, "batch outputs width"]:
        """Return hidden states of shape (batch, tokens, width), the input of :meth:`level_logits`.

        Args:
            embeddings: Codebook embeddings of the tokens; any finite value where the token is masked.
            mask: True where the token is masked.
            text: Output of :meth:`encode_text`: a text per image, or one for all images.
            caches: Receive the keys and values of each layer's self-attention.
            positions: Raster positions of the tokens, if they are not all. They attend to the others by the keys and
                values in the caches.
            num_outputs: Return the states of this many tokens, the first ones; the last layer computes these only.
        """
        states = self.input_proj(embeddings)
        states = torch.where(mask[..., None], self.mask_token.to(states.dtype), states)
        places = (self.row_embeddings + self.column_embeddings).flatten(0, 1).to(states.dtype)
        states = states + (places if positions is None else places[positions])
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            attended = (*text.keys_values[number], text.mask)
            if self.checkpoint_activations and torch.is_grad_enabled():
                states = checkpoint(layer, states, attended, use_reentrant=False)
            else:
                cache = caches[number] if caches else None
                states = layer(states, attended, cache, positions, num_outputs if number == last else None)
        normed: Tensor = self.norm(states)
        return normed

    def level_logits(
        self, states: Float[Tensor, "*rows width"], codes: Int[Tensor, "*rows known"]
    ) -> Float[Tensor, "*rows codes"]:
        """Return logits of the next level's codes, given the codes of the previous levels (none for the first).

        Args:
            states: Hidden states of masked tokens only: the cost of a head is proportional to the codebook size.
            codes: Codes of the ``known`` previous levels.
        """
        for level, level_codes in enumerate(codes.unbind(-1)):
            states = states + self.level_embeddings[level](level_codes)
        logits: Tensor = self.heads[codes.shape[-1]](states)
        return logits


class MaskGitLayer(nn.Module):
    """Self-attention, cross-attention to the text, and an MLP, each residual with a preceding RMSNorm."""

    def __init__(self, width: int, text_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, num_heads)
        self.cross_attn = CrossAttention(width, text_dim, num_heads, width // num_heads, qk_norm=True)
        self.norm1 = RMSNorm(width)
        self.norm2 = RMSNorm(width)
        self.norm3 = RMSNorm(width)
        self.up_proj = nn.Linear(width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: Float[Tensor, "batch tokens width"],
        text: tuple[Tensor, Tensor, Tensor],
        cache: KeyValueCache | None = None,
        positions: Int[Tensor, "batch tokens"] | None = None,
        num_outputs: int | None = None,
    ) -> Float[Tensor, "batch outputs width"]:
        """Apply the layer.

        Args:
            states: Hidden states.
            text: Keys, values and mask of the text.
            cache: Keys and values of the self-attention.
            positions: Positions of the tokens, if they are not all.
            num_outputs: Return this many tokens, the first ones.
        """
        mixed = self.dropout(self.self_attn(self.norm1(states), cache, positions, num_outputs))
        states = states[:, :num_outputs] + mixed
        states = states + self.dropout(self._attend_to_text(states, *text))
        output: Tensor = states + self.dropout(self.down_proj(gelu(self.up_proj(self.norm3(states)))))
        return output

    def _attend_to_text(self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if keys.shape[2] == 1 and not self.training:
            return self.cross_attn.project_out(values)  # attention over a single key is the identity on its value
        output: Tensor = self.cross_attn(self.norm2(states), keys, values, mask)
        return output
