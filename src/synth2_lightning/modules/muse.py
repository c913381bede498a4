"""Trains the generator: MUSE (Chang et al., arXiv 2301.00704) on the tokens of the captioner's own encoder."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from synth2_lightning.generators.muse import draw_tokens, save_generator
from synth2_lightning.interfaces import ImageTokenizer, TextEncoder
from synth2_lightning.metrics.retrieval import RetrievalRecall
from synth2_lightning.modules.base import BaseModule, OptimizerFactory, SchedulerFactory
from synth2_lightning.modules.ranks import locate_rows, mean_over_ranks
from synth2_lightning.modules.sharding import choose_precision, shard_part, whole_weights
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.masking import draw_mask
from synth2_lightning.nn.parallel_decoding import SamplingSettings
from synth2_lightning.nn.unmasking import ConfidenceOrder, UnmaskingOrder
from synth2_lightning.types import ImageInput, ImageTextBatch, MixedImages, Pixels, TokenLoss, VQTokens

MaskGitFactory = Callable[[int, int, int, tuple[int, int], int], MaskGit]
"""``(embedding dim, codes, levels, grid, text dim) -> MaskGit``: a run file says only what is free to choose."""

_NUM_BINS = 4  # of the share of hidden tokens, for the logs


class GenerationOutput(TypedDict):
    """What ``validation_step`` and ``test_step`` return."""

    captions: tuple[str, ...]
    generated: VQTokens
    real: VQTokens


class MuseModule(BaseModule):
    """Learns to guess hidden image tokens from the others and the caption; draws pictures in validation.

    Logs the loss by how much is hidden (``train/loss_hidden_25`` is over pictures of which up to a quarter is), the
    accuracy, and in validation what tells whether the drawn grids are like real ones: how many different codes a grid
    has beside a real one, and how often the true picture is among the ten nearest to what was drawn for its caption.
    When the fit ends, the generator is written to ``generator/`` in the run's log folder, ready for
    :class:`~synth2_lightning.generators.muse.MuseGenerator`.

    Args:
        tokenizer: Frozen; turns pictures into the codes that are learnt.
        text_encoder: Conditions the network; trained along if it is not frozen.
        network: Factory of the network, called with what tokenizer and text encoder tell.
        text_dropout: Share of the texts that are replaced by the null text, 0 to 1; what guidance needs.
        label_smoothing: Share of the target's mass that is spread over all codes, 0 to 1.
        sampling: How pictures are drawn in validation.
        order: Which tokens a step of drawing reveals.
        optimizer: See :class:`BaseModule`.
        lr_scheduler: See :class:`BaseModule`.

    Raises:
        ValueError: If a share is out of range, or the tokenizer's grid is not square.

    Example:
        >>> from functools import partial
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyTextEncoder
        >>> network = partial(MaskGit, width=16, depth=1, num_heads=2)
        >>> module = MuseModule(TinyImageTokenizer(), TinyTextEncoder(), network)
        >>> module.network.num_tokens
        4
    """

    frozen_parts: ClassVar[tuple[str, ...]] = ("tokenizer",)

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        text_encoder: TextEncoder,
        network: MaskGitFactory,
        text_dropout: float = 0.1,
        label_smoothing: float = 0.1,
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 - frozen, and read by the command line
        order: UnmaskingOrder = ConfidenceOrder(),  # noqa: B008 - without state
        optimizer: OptimizerFactory = AdamW,
        lr_scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if not (0 <= text_dropout <= 1 and 0 <= label_smoothing < 1):
            raise ValueError(
                f"MuseModule was given text_dropout={text_dropout} and label_smoothing={label_smoothing}; expected "
                "shares from 0 to 1, of the second below 1."
            )
        self.tokenizer = tokenizer.requires_grad_(False)
        self.text_encoder = text_encoder
        sizes = (tokenizer.embed_dim, tokenizer.codebook_size, tokenizer.num_levels)
        self.network = network(*sizes, _square(tokenizer.num_tokens), text_encoder.embed_dim)
        self.text_dropout = text_dropout
        self.label_smoothing = label_smoothing
        self.sampling = sampling
        self.order = order
        self.recall = RetrievalRecall(k=10)

    def shard(self, mesh: DeviceMesh) -> None:
        """Spread the network over the mesh, and the text encoder if it is trained."""
        policy = choose_precision(self.trainer.precision)
        for layer in self.network.layers:
            shard_part(layer.get_submodule("text_attention"), mesh, entries=("read", "tell"), policy=policy)
        shard_part(self.network, mesh, entries=("read", "guess"), policy=policy)
        if any(weight.requires_grad for weight in self.text_encoder.parameters()):
            shard_part(self.text_encoder, mesh, entries=("encode",), policy=policy)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Learn from one batch of pictures or tokens."""
        tokens = self._tokens(batch.image)
        num_rows, own = locate_rows(len(batch))
        chance = self.draw_alike()
        is_dropped = (torch.rand(num_rows, generator=chance) < self.text_dropout)[own].to(self.device)
        is_hidden = draw_mask(num_rows, self.network.num_tokens, chance)[own].to(self.device)
        losses, accuracy = self._guess(tokens, batch.captions, is_hidden, is_dropped)
        loss, mean = mean_over_ranks(TokenLoss(losses.sum(1), is_hidden.sum(1)))
        self.log("train/loss", mean, prog_bar=True, batch_size=len(batch))
        self.log("train/accuracy", accuracy, prog_bar=True, batch_size=len(batch))
        self.log("train/text_dropped", is_dropped.float().mean(), batch_size=len(batch))
        self._log_bins(losses.detach(), is_hidden)
        return loss

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> GenerationOutput:
        """Measure the loss on the same hidden tokens every time, and draw a picture for every caption."""
        return self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> GenerationOutput:
        """As in validation, under the name ``test``."""
        return self._evaluate(batch, batch_idx, "test")

    def on_fit_end(self) -> None:
        """Write the trained generator."""
        self.check_weights()
        # The log folder is asked for on every rank, because the answer is broadcast.
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir) / "generator"
        is_writer = self.trainer.is_global_zero
        with whole_weights(self.trainer.strategy):
            save_generator(folder, self.network, self.text_encoder, self.tokenizer.codebook, is_writer)

    def _evaluate(self, batch: ImageTextBatch, batch_idx: int, stage: str) -> GenerationOutput:
        real = self._tokens(batch.image)
        generator = torch.Generator().manual_seed(batch_idx)
        is_hidden = draw_mask(len(batch), self.network.num_tokens, generator).to(self.device)
        losses, accuracy = self._guess(real, batch.captions, is_hidden, torch.zeros_like(is_hidden[:, 0]))
        seeds = [batch_idx * len(batch) + row for row in range(len(batch))]
        generated = draw_tokens(
            self.network, self.tokenizer, self.text_encoder, batch.captions, seeds, self.sampling, self.order
        )
        assert isinstance(generated, VQTokens), "no candidates were asked for"
        self.recall.update(self._pool(generated), self._pool(real))
        figures = {
            "loss": losses[is_hidden].mean(),
            "accuracy": accuracy,
            "codes_per_grid": _count_codes(generated),
            "codes_per_grid_real": _count_codes(real),
        }
        for name, value in figures.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss", batch_size=len(batch), sync_dist=True)
        self.log(f"{stage}/recall_at_10", self.recall, prog_bar=True, on_step=False, on_epoch=True)
        return GenerationOutput(captions=batch.captions, generated=generated, real=real)

    def _tokens(self, image: ImageInput) -> VQTokens:
        match image:
            case VQTokens():
                return image
            case Pixels():
                return self.tokenizer.tokenize(image)
            case MixedImages():
                parts = [self._tokens(part) for part in image.parts]
                return VQTokens(torch.cat([part.ids for part in parts]), parts[0].codebook)
            case _:
                raise TypeError(
                    f"MuseModule was given {type(image).__name__}; expected Pixels or VQTokens, because it learns from "
                    "codes that were chosen."
                )

    def _guess(
        self,
        tokens: VQTokens,
        captions: tuple[str, ...],
        is_hidden: Bool[Tensor, "batch tokens"],
        is_dropped: Bool[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch tokens"], Float[Tensor, ""]]:
        """Loss of every hidden token (nats, mean over levels; 0 where seen), and the share of codes guessed right."""
        with torch.no_grad():
            embeddings = self.tokenizer.embed_tokens(tokens)
        memory = self.network.read(*self.text_encoder.encode(captions), is_dropped)
        states = self.network(embeddings, is_hidden, memory)[is_hidden]
        targets = tokens.ids[is_hidden]
        losses, hits = [], []
        for level in range(self.network.num_levels):
            logits = self.network.guess(states, targets[:, :level]).float()
            wanted = targets[:, level]
            losses.append(cross_entropy(logits, wanted, reduction="none", label_smoothing=self.label_smoothing))
            hits.append(logits.detach().argmax(-1) == wanted)
        mean = torch.stack(losses).mean(0)
        return mean.new_zeros(is_hidden.shape).masked_scatter(is_hidden, mean), torch.stack(hits).float().mean()

    def _log_bins(self, losses: Float[Tensor, "batch tokens"], is_hidden: Bool[Tensor, "batch tokens"]) -> None:
        counts = is_hidden.sum(1)
        bins = (counts / is_hidden.shape[1] * _NUM_BINS).ceil().long() - 1
        for number in range(_NUM_BINS):
            rows = bins == number
            if rows.any():
                value = losses[rows].sum() / counts[rows].sum()
                self.log(f"train/loss_hidden_{100 * (number + 1) // _NUM_BINS}", value, batch_size=int(rows.sum()))

    def _pool(self, tokens: VQTokens) -> Float[Tensor, "batch dim"]:
        return self.tokenizer.embed_tokens(tokens).float().mean(1)


def _square(num_tokens: int) -> tuple[int, int]:
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(
            f"The tokenizer makes {num_tokens} tokens of a picture, which are no square grid; expected one, such as 64 "
            "or 256. Use a tokenizer of square pictures."
        )
    return side, side


def _count_codes(tokens: VQTokens) -> Float[Tensor, ""]:
    """Mean number of different codes of the first level in a grid."""
    ordered = tokens.ids[..., 0].sort(dim=1).values
    return 1 + (ordered.diff(dim=1) != 0).sum(1).float().mean()
