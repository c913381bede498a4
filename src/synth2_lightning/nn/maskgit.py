"""MaskGit: a bidirectional transformer that guesses hidden image tokens from the seen ones and from a text.

Shape legend besides that of ``types.py``: heads H, channels of a head C, text length T, layers Y.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from synth2_lightning.nn.attention import attend
from synth2_lightning.nn.normalization import RMSNorm


@dataclass(frozen=True, slots=True)
class TextMemory:
    """A text as the layers of a :class:`MaskGit` read it: made once per caption, however many steps follow."""

    keys_values: tuple[
        tuple[Float[Tensor, "batch heads text channels"], Float[Tensor, "batch heads text channels"]], ...
    ]
    mask: Bool[Tensor, "batch 1 1 text"]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.mask)


class MaskGit(nn.Module):
    """Guesses the codes of hidden tokens, given those of the others and a text (MUSE, arXiv 2301.00704, section 2.2).

    Tokens come as the embeddings that the tokenizer gives its codes, so that codes which look alike begin alike. Every
    layer attends to all tokens, then to the text, then thinks; RMSNorm before each, queries and keys normalised (Henry
    et al., arXiv 2010.04245). A token of a residual codebook has one code per level, each with a head of its own that
    knows the codes of the levels before: given the picture, they are far from independent.

    Args:
        embed_dim: D, width of the tokenizer's embeddings.
        codebook_size: K, codes of a level.
        num_levels: L, residual levels.
        grid: Rows and columns of tokens.
        text_dim: Width of the text's embeddings.
        width: Inner width.
        depth: Y, layers.
        num_heads: H, attention heads; divides ``width``.
        dropout: Share of a layer's output that is dropped in training.

    Attributes:
        sizes: The arguments, for whoever saves the network and builds it again.

    Raises:
        ValueError: If ``num_heads`` does not divide ``width``.

    Example:
        >>> net = MaskGit(6, codebook_size=16, num_levels=1, grid=(2, 2), text_dim=8, width=32, depth=2, num_heads=2)
        >>> memory = net.read(torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool))
        >>> net(torch.randn(3, 4, 6), torch.ones(3, 4, dtype=torch.bool), memory).shape
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
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"MaskGit was given width={width} and num_heads={num_heads}; expected a multiple.")
        self.codebook_size = codebook_size
        self.num_levels = num_levels
        self.grid = (grid[0], grid[1])
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
        self.input = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, width))
        self.hidden_token = nn.Parameter(0.5 * torch.randn(width))
        self.rows = nn.Parameter(0.5 * torch.randn(grid[0], 1, width))
        self.columns = nn.Parameter(0.5 * torch.randn(1, grid[1], width))
        self.text_norm = nn.LayerNorm(text_dim)
        self.null_text = nn.Parameter(torch.randn(text_dim))
        self.layers = nn.ModuleList(MaskGitLayer(width, text_dim, num_heads, dropout) for _ in range(depth))
        self.output_norm = RMSNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, codebook_size) for _ in range(num_levels))
        self.chosen = nn.ModuleList(nn.Embedding(codebook_size, width) for _ in range(num_levels - 1))

    @property
    def num_tokens(self) -> int:
        """N, tokens of a picture."""
        return self.grid[0] * self.grid[1]

    def read(
        self,
        text: Float[Tensor, "batch text dim"],
        mask: Bool[Tensor, "batch text"],
        is_dropped: Bool[Tensor, " batch"] | None = None,
    ) -> TextMemory:
        """Prepare texts for all layers.

        Args:
            text: Embeddings of a :class:`~synth2_lightning.interfaces.TextEncoder`.
            mask: True at real words.
            is_dropped: True where the null text takes the text's place: so the network learns to do without, and
                guidance has something to move away from.
        """
        text = self.text_norm(text)
        if is_dropped is not None:
            first = torch.arange(text.shape[1], device=text.device) == 0
            text = torch.where(is_dropped[:, None, None], self.null_text.to(text.dtype), text)
            mask = torch.where(is_dropped[:, None], first, mask)
        keys_values = tuple(cast(MaskGitLayer, layer).text_attention.read(text) for layer in self.layers)
        return TextMemory(keys_values, mask[:, None, None, :])

    def forward(
        self,
        embeddings: Float[Tensor, "batch tokens dim"],
        is_hidden: Bool[Tensor, "batch tokens"],
        *memories: TextMemory,
    ) -> Float[Tensor, "states tokens width"]:
        """Think about every token; the heads turn thoughts into guesses.

        Args:
            embeddings: What the tokenizer gives the codes of seen tokens; anything finite at hidden ones.
            is_hidden: True where the code is to be guessed.
            memories: What :meth:`read` made of the texts. Where there are several, every picture is thought about with
                each, and the results lie behind each other.
        """
        states = self.input(embeddings)
        states = torch.where(is_hidden[..., None], self.hidden_token.to(states.dtype), states)
        states = states + (self.rows + self.columns).flatten(0, 1).to(states.dtype)
        states = torch.cat([states] * len(memories)) if len(memories) > 1 else states
        for number, layer in enumerate(self.layers):
            states = layer(states, [(*memory.keys_values[number], memory.mask) for memory in memories])
        normed: Tensor = self.output_norm(states)
        return normed

    def guess(
        self, states: Float[Tensor, "*rows width"], codes: Int[Tensor, "*rows known"]
    ) -> Float[Tensor, "*rows codes"]:
        """Logits of the codes of the next level, where those of the levels before are known (none for the first).

        Args:
            states: Of the tokens to be guessed only: the heads are dear where codebooks are large.
            codes: The codes of the ``known`` levels before.
        """
        for level, chosen in enumerate(codes.unbind(-1)):
            states = states + self.chosen[level](chosen)
        logits: Tensor = self.heads[codes.shape[-1]](states)
        return logits


class MaskGitLayer(nn.Module):
    """Attention to all tokens, attention to the text, and a feed-forward layer, each residual after an RMSNorm."""

    def __init__(self, width: int, text_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, num_heads)
        self.text_attention = TextAttention(width, text_dim, num_heads)
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(3))
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, states: Float[Tensor, "states tokens width"], texts: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> Float[Tensor, "states tokens width"]:
        """Refine.

        Args:
            states: As many for each of the texts.
            texts: Keys, values and mask of what is read.
        """
        states = states + self.dropout(self.attention(self.norms[0](states)))
        parts = zip(states.chunk(len(texts)), texts, strict=True)
        read = [part + self.dropout(self._read(part, *text)) for part, text in parts]
        states = torch.cat(read) if len(read) > 1 else read[0]
        refined: Tensor = states + self.dropout(self.contract(gelu(self.expand(self.norms[2](states)))))
        return refined

    def _read(self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if keys.shape[2] == 1 and not self.training:
            return self.text_attention.tell(values)  # whoever looks at a single word sees that word
        output: Tensor = self.text_attention(self.norms[1](states), keys, values, mask)
        return output


class SelfAttention(nn.Module):
    """Every token looks at every token."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = RMSNorm(width // num_heads)
        self.key_norm = RMSNorm(width // num_heads)
        self.to_output = nn.Linear(width, width, bias=False)

    def forward(self, states: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Look."""
        parts = self.to_queries_keys_values(states)
        queries, keys, values = rearrange(parts, "b n (three h c) -> three b h n c", three=3, h=self.num_heads)
        seen = attend(self.query_norm(queries), self.key_norm(keys), values)
        output: Tensor = self.to_output(rearrange(seen, "b h n c -> b n (h c)"))
        return output


class TextAttention(nn.Module):
    """Every token looks at the words of the text, whose keys and values are made beforehand."""

    def __init__(self, width: int, text_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(text_dim, 2 * width, bias=False)
        self.query_norm = RMSNorm(width // num_heads)
        self.key_norm = RMSNorm(width // num_heads)
        self.to_output = nn.Linear(width, width, bias=False)

    def read(self, text: Float[Tensor, "batch text dim"]) -> tuple[Tensor, Tensor]:
        """Make the keys and values of a text."""
        parts = self.to_keys_values(text)
        keys, values = rearrange(parts, "b t (two h c) -> two b h t c", two=2, h=self.num_heads)
        return self.key_norm(keys), values

    def forward(
        self,
        states: Float[Tensor, "batch tokens width"],
        keys: Float[Tensor, "batch heads text channels"],
        values: Float[Tensor, "batch heads text channels"],
        mask: Bool[Tensor, "batch 1 1 text"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Look."""
        queries = rearrange(self.to_queries(states), "b n (h c) -> b h n c", h=self.num_heads)
        return self.tell(attend(self.query_norm(queries), keys, values, mask))

    def tell(self, seen: Float[Tensor, "batch heads tokens channels"]) -> Float[Tensor, "batch tokens width"]:
        """Put together what the heads saw."""
        output: Tensor = self.to_output(rearrange(seen, "b h n c -> b n (h c)"))
        return output
