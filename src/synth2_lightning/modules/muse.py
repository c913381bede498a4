"""Training of the image generator: MUSE (Chang et al., arXiv 2301.00704) on the captioner's image tokens."""

import math
from collections.abc import Callable
from typing import ClassVar, TypedDict, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from synth2_lightning.compat.lightning import attributes_of
from synth2_lightning.generators.muse import sample_image_tokens, save_generator
from synth2_lightning.interfaces import ImageTokenizer, TextEncoder
from synth2_lightning.io.recorded_specs import describe
from synth2_lightning.metrics.retrieval import RetrievalRecall
from synth2_lightning.metrics.token_loss import MeanTokenLoss
from synth2_lightning.modules.base import BaseModule
from synth2_lightning.modules.exports import export_folder
from synth2_lightning.modules.generator_card import write_generator_card
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.masking import sample_mask
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.nn.unmasking import ConfidenceOrder, UnmaskingOrder
from synth2_lightning.training.divergence import check_finite_weights
from synth2_lightning.training.optimizers import OptimizerFactory, SchedulerFactory
from synth2_lightning.training.seeding import seed_of_key
from synth2_lightning.training.sharding import choose_precision, full_weights, shard_component
from synth2_lightning.types import ImageInput, ImageTextBatch, MixedImages, Pixels, TokenLoss, VQTokens

MaskGitFactory = Callable[[int, int, int, tuple[int, int], int], MaskGit]
"""``(embedding dim, codebook size, levels, grid, text dim) -> MaskGit``; a run file sets the other arguments."""

_NUM_BINS = 4  # of the fraction of masked tokens, for logging


class GenerationOutput(TypedDict):
    """Output of ``validation_step`` and ``test_step``."""

    captions: tuple[str, ...]
    generated: VQTokens
    real: VQTokens


class MuseModule(BaseModule):
    """Trains a masked image token predictor, conditioned on captions; samples images in validation.

    Logs the loss by fraction of masked tokens (``train/loss_masked_25``: images with up to 25 % masked) and the
    accuracy. Validation also logs, for sampled and real images, the number of different codes per image, and the
    recall at 10 of the real image among the nearest neighbors of the image sampled for its caption. In these figures
    and in the accuracy, unlike in the loss, images that a distributed sampler repeats count again. At the end of the
    fit the generator is written, for :class:`~synth2_lightning.generators.muse.MuseGenerator`.

    Args:
        tokenizer: Maps images to codes, the targets; frozen.
        text_encoder: Encodes the captions; trained jointly unless frozen.
        network: Factory of the network, called with the sizes of tokenizer and text encoder.
        text_dropout: Fraction of captions replaced by the null conditioning, 0 to 1, for classifier-free guidance.
        label_smoothing: Fraction of the target probability that is spread over all codes, 0 to below 1.
        sampling: Parameters of the sampling in validation.
        order: Selects the tokens that a sampling step commits.
        compile_network: Compile the network's layers by ``torch.compile``; ``benchmarks/gpu.py`` measures the effect.
            Losses differ from those without it by rounding.
        export_to: Folder that the generator is written to; by default ``generator/`` in the log folder.
        optimizer: See :class:`BaseModule`.
        lr_scheduler: See :class:`BaseModule`.

    Raises:
        ValueError: If a fraction is out of range, or the tokenizer's grid is not square.

    Example:
        >>> from functools import partial
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyTextEncoder
        >>> network = partial(MaskGit, width=16, depth=1, num_heads=2)
        >>> module = MuseModule(TinyImageTokenizer(), TinyTextEncoder(), network)
        >>> module.network.num_tokens
        4
    """

    frozen_components: ClassVar[tuple[str, ...]] = ("tokenizer",)

    def __init__(  # noqa: PLR0913 - components and settings of a run file
        self,
        tokenizer: ImageTokenizer,
        text_encoder: TextEncoder,
        network: MaskGitFactory,
        text_dropout: float = 0.1,
        label_smoothing: float = 0.1,
        sampling: MaskGitSampling = MaskGitSampling(),  # noqa: B008 - frozen, and read by the command line
        order: UnmaskingOrder = ConfidenceOrder(),  # noqa: B008 - without state
        compile_network: bool = False,
        export_to: str | None = None,
        optimizer: OptimizerFactory = AdamW,
        lr_scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if not (0 <= text_dropout <= 1 and 0 <= label_smoothing < 1):
            raise ValueError(
                f"MuseModule got text_dropout={text_dropout} and label_smoothing={label_smoothing}; expected fractions "
                "from 0 to 1, the second below 1."
            )
        self.tokenizer = tokenizer.requires_grad_(False)
        self.text_encoder = text_encoder
        sizes = (tokenizer.embed_dim, tokenizer.codebook_size, tokenizer.num_levels)
        self.network = network(*sizes, _square(tokenizer.num_tokens), text_encoder.embed_dim)
        if compile_network:
            self.network.compile_layers()
        self.text_dropout = text_dropout
        self.label_smoothing = label_smoothing
        self.sampling = sampling
        self.order = order
        self.export_to = export_to
        self.recall = RetrievalRecall(k=10)
        self.token_loss = MeanTokenLoss()

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard the network over the mesh, and the text encoder if it is trained."""
        policy = choose_precision(self.trainer.precision)
        for layer in self.network.layers:
            cross_attn = layer.get_submodule("cross_attn")
            shard_component(cross_attn, mesh, entries=("keys_values", "project_out"), policy=policy)
        shard_component(self.network, mesh, entries=("encode_text", "level_logits"), policy=policy)
        if any(weight.requires_grad for weight in self.text_encoder.parameters()):
            shard_component(self.text_encoder, mesh, entries=("encode",), policy=policy)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch on randomly masked tokens."""
        tokens = self._tokens(batch.image)
        uniform = self.sample_rows(len(batch), 2 + self.network.num_tokens)
        drop_text, mask = uniform[:, 0] < self.text_dropout, sample_mask(uniform[:, 1:])
        losses, counts, accuracy = self._masked_loss(tokens, batch.captions, mask, drop_text, self.label_smoothing)
        loss, mean = self.mean_over_ranks(TokenLoss(losses.sum(1), counts).weighted(batch.weights))
        metrics = {"train/loss": mean, "train/accuracy": accuracy, "train/text_dropped": drop_text.float().mean()}
        self.log_training(metrics, len(batch), shown=("train/loss", "train/accuracy"))
        self._log_bins(losses.detach(), mask)
        return loss

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> GenerationOutput:
        """Measure the loss without label smoothing, and sample an image for every caption.

        Masks and samples follow from the key of an image: they are the same in all epochs and on any number of ranks.
        """
        return self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> GenerationOutput:
        """Do the same as in validation; the metrics' names begin with ``test``."""
        return self._evaluate(batch, batch_idx, "test")

    def on_fit_end(self) -> None:
        """Run at the end of a fit: writes the trained generator."""
        check_finite_weights(self)
        folder = export_folder(self.trainer, self.export_to, "generator")
        is_writer = self.trainer.is_global_zero
        card = self._write_card(folder.name)
        with full_weights(self.trainer.strategy):
            save_generator(folder, self.network, self.text_encoder, self.tokenizer.codebook, card, is_writer)

    def _write_card(self, name: str) -> str:
        """Return the card of the generator; empty if a component cannot be described, such as one of a notebook."""
        datamodule = attributes_of(self.trainer).datamodule
        try:
            parts = {part: describe(getattr(self, part)) for part in ("tokenizer", "text_encoder", "sampling", "order")}
            data = None if datamodule is None else describe(datamodule)
        except TypeError:
            return ""
        return write_generator_card(name, self.tokenizer.codebook, parts, data, self.trainer.global_step)

    def _evaluate(self, batch: ImageTextBatch, batch_idx: int, stage: str) -> GenerationOutput:
        real = self._tokens(batch.image)
        seeds = [seed_of_key(key) for key in batch.keys]
        uniform = [torch.rand(1 + self.network.num_tokens, generator=torch.Generator().manual_seed(s)) for s in seeds]
        mask = sample_mask(torch.stack(uniform))
        losses, counts, accuracy = self._masked_loss(real, batch.captions, mask, torch.zeros_like(mask[:, 0]), 0.0)
        self.token_loss.update(batch.keys, TokenLoss(losses.sum(1), counts))
        generated = sample_image_tokens(
            self.network, self.tokenizer, self.text_encoder, batch.captions, seeds, self.sampling, self.order
        )
        self.recall.update(self._pool(generated), self._pool(real))
        figures = {
            "accuracy": accuracy,
            "codes_per_grid": _count_codes(generated),
            "codes_per_grid_real": _count_codes(real),
        }
        for name, value in figures.items():
            self.log(f"{stage}/{name}", value, batch_size=len(batch), sync_dist=True)
        self.log(f"{stage}/loss", self.token_loss, prog_bar=True, on_step=False, on_epoch=True)
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
                own = self.tokenizer.codebook
                codebook = next(
                    (part.codebook for part in parts if part.codebook != own), own
                )  # refused where embedded
                return VQTokens(torch.cat([part.ids for part in parts]), codebook)
            case _:
                assert_never(image)

    def _masked_loss(
        self,
        tokens: VQTokens,
        captions: tuple[str, ...],
        mask: Bool[Tensor, "batch tokens"],
        drop_text: Bool[Tensor, " batch"],
        label_smoothing: float,
    ) -> tuple[Float[Tensor, "batch tokens"], Int[Tensor, " batch"], Float[Tensor, ""]]:
        """Return loss per masked token (nats, mean over levels; 0 elsewhere), their number per image, and accuracy.

        ``mask`` and ``drop_text`` are on the host: the number of masked tokens determines the shapes on the device.
        """
        device = tokens.ids.device
        positions = to_device(mask.flatten().nonzero().squeeze(1), device)
        mask, drop_text = to_device(mask, device), to_device(drop_text, device)
        with torch.no_grad():
            embeddings = self.tokenizer.embed_tokens(tokens)
        text = self.network.encode_text(*self.text_encoder.encode(captions), drop_text)
        states = self.network(embeddings, mask, text).flatten(0, 1).index_select(0, positions)
        targets = tokens.ids.flatten(0, 1).index_select(0, positions)
        losses, hits = [], []
        for level in range(self.network.num_levels):
            logits = self.network.level_logits(states, targets[:, :level]).float()
            target = targets[:, level]
            losses.append(cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing))
            hits.append(logits.detach().argmax(-1) == target)
        mean = torch.stack(losses).mean(0)
        # The backward pass of masked_scatter would wait for the device.
        scattered = mean.new_zeros(mask.numel()).index_copy(0, positions, mean).view(mask.shape)
        return scattered, mask.sum(1), torch.stack(hits).float().mean()

    def _log_bins(self, losses: Float[Tensor, "batch tokens"], mask: Bool[Tensor, "batch tokens"]) -> None:
        counts = mask.sum(1)
        bins = (counts / mask.shape[1] * _NUM_BINS).ceil().long() - 1
        for number in range(_NUM_BINS):
            rows = (bins == number).nonzero().squeeze(1)
            if len(rows):
                value = losses.index_select(0, to_device(rows, losses.device)).sum() / int(counts[rows].sum())
                self.log(f"train/loss_masked_{100 * (number + 1) // _NUM_BINS}", value, batch_size=len(rows))

    def _pool(self, tokens: VQTokens) -> Float[Tensor, "batch dim"]:
        return self.tokenizer.embed_tokens(tokens).float().mean(1)


def _square(num_tokens: int) -> tuple[int, int]:
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(
            f"The tokenizer maps an image to {num_tokens} tokens; expected a square grid, such as 64 or 256. "
            "Use a tokenizer of square images."
        )
    return side, side


def _count_codes(tokens: VQTokens) -> Float[Tensor, ""]:
    """Return the mean number of different first-level codes per image."""
    ordered = tokens.ids[..., 0].sort(dim=1).values
    return 1 + (ordered.diff(dim=1) != 0).sum(1).float().mean()
