"""A residual codebook over any frozen encoder's features makes that encoder an image tokenizer.

Levels after the first quantise what the levels before left over (residual vector quantisation; Juang and Gray, 1982;
Zeghidour et al., arXiv 2107.03312). Nearest codes do not change when everything is shifted or scaled together, so the
codes lie in the encoder's own space and nothing is normalised on the way.
"""

import json
from pathlib import Path
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from synth2_lightning.files import write_files
from synth2_lightning.fingerprints import fingerprint_codebook
from synth2_lightning.interfaces import CodebookLearner, ImageEncoder, ImageTokenizer
from synth2_lightning.jsontext import read_description
from synth2_lightning.locations import resolve
from synth2_lightning.types import Pixels, Quantization, SoftVQTokens, VQTokens
from synth2_lightning.weight_files import read_safetensors, write_safetensors

_CONFIG = "codebook.json"
_CODES = "codebook.safetensors"


class QuantizedEncoder(ImageTokenizer):
    """A frozen encoder with a learnt codebook over its features.

    Embeddings of tokens lie in the encoder's own space, so they may meet continuous features of the same encoder.

    Args:
        encoder: Makes the features; the one that the codebook was learnt on.
        codebook: Location of a folder that :meth:`ResidualCodebookLearner.export` wrote.
        num_levels: How many levels to use, counted from the coarsest; all where left out. Levels are nested: the
            first ones are what a shorter codebook would have learnt.
        quantize_pixels: Whether photographs are quantised too, as in Synth², where real and synthetic pictures speak
            the same codes. Otherwise photographs keep their continuous features and only tokens are looked up:
            nothing is lost of them, but real and synthetic pictures can be told apart.

    Raises:
        FileNotFoundError: If no codebook lies there.
        ValueError: If the codebook was learnt on another encoder, or has fewer levels.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
        >>> learner = ResidualCodebookLearner(TinyImageTokenizer(), codebook_size=4, num_levels=2)
        >>> learner.load()
        >>> _ = learner.quantize(tiny_batch().image)
        >>> with TemporaryDirectory() as folder:
        ...     learner.export(Path(folder))
        ...     tokenizer = QuantizedEncoder(TinyImageTokenizer(), folder)
        ...     tokenizer.load()
        >>> tokenizer.codebook.partition(":")[0]
        'tiny-4x2'
    """

    codes: Float[Tensor, "levels codes dim"]

    def __init__(
        self, encoder: ImageEncoder, codebook: str, num_levels: int | None = None, quantize_pixels: bool = True
    ) -> None:
        super().__init__()
        folder = resolve(codebook, "codebook")
        config = read_description(
            resolve(folder / _CONFIG, "codebook's description"),
            {"encoder": str, "codebook_size": int, "num_levels": int},
            "what `CodebookModule` writes",
        )
        if config["encoder"] != encoder.name:
            raise ValueError(
                f"The codebook {codebook!r} was learnt on features of {config['encoder']!r}, but this run's encoder is "
                f"{encoder.name!r}, and their spaces have nothing in common. Use that encoder, or learn a codebook of "
                "this one (modules.codebook.CodebookModule)."
            )
        self.num_levels = config["num_levels"] if num_levels is None else num_levels
        if not 1 <= self.num_levels <= config["num_levels"]:
            raise ValueError(
                f"{self.num_levels} levels were asked of the codebook {codebook!r}, which has {config['num_levels']}; "
                f"expected 1 to {config['num_levels']}."
            )
        self.encoder = encoder
        self.name = encoder.name
        self.num_tokens = encoder.num_tokens
        self.embed_dim = encoder.embed_dim
        self.image_size = encoder.image_size
        self.codebook_size = config["codebook_size"]
        self.codebook = ""
        self.quantize_pixels = quantize_pixels
        self._folder = folder
        codes = torch.zeros(self.num_levels, self.codebook_size, self.embed_dim)
        self.register_buffer("codes", codes, persistent=False)

    def load(self) -> None:
        """Bring the encoder's weights and the codes, and take the codebook's fingerprint."""
        self.encoder.load()
        if self.codebook:
            return
        codes = read_safetensors(resolve(self._folder / _CODES, "codebook's codes"))["codes"]
        codes = codes[: self.num_levels].contiguous()
        self.codes.copy_(codes)
        self.codebook = fingerprint_codebook(self.name, codes)

    @torch.no_grad()
    def tokenize(self, pixels: Pixels) -> VQTokens:
        """Turn pictures into ids, level after level."""
        self._check_loaded()
        return VQTokens(_nearest(self.encoder.encode_pixels(pixels), self.codes), self.codebook)

    @torch.no_grad()
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Embed pictures: as the sum of their codes, or continuously if told so."""
        if not self.quantize_pixels:
            return self.encoder.encode_pixels(pixels)
        return self._look_up(self.tokenize(pixels).ids)

    @torch.no_grad()
    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Look ids up and sum over the levels.

        Raises:
            ValueError: If they speak another codebook, are outside of it, or have another number of levels.
        """
        self._check(tokens.codebook, tokens.ids)
        return self._look_up(tokens.ids)

    @torch.no_grad()
    def embed_soft_tokens(self, tokens: SoftVQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Take the expectation at each level and sum over the levels.

        Raises:
            ValueError: If they speak another codebook, are outside of it, or have another number of levels.
        """
        self._check(tokens.codebook, tokens.ids[..., 0])
        levels = zip(self.codes, tokens.ids.unbind(2), tokens.probabilities.unbind(2), strict=True)
        return torch.stack([(codes[ids] * shares[..., None]).sum(-2) for codes, ids, shares in levels]).sum(0)

    def _look_up(self, ids: Int[Tensor, "batch tokens levels"]) -> Float[Tensor, "batch tokens dim"]:
        return torch.stack([codes[level] for codes, level in zip(self.codes, ids.unbind(2), strict=True)]).sum(0)

    def _check(self, codebook: str, ids: Tensor) -> None:
        self._check_loaded()
        self.check_codebook(codebook)
        if ids.shape[2] != self.num_levels:
            raise ValueError(
                f"The image tokens have {ids.shape[2]} levels, but codebook {self.codebook!r} has {self.num_levels}. "
                "The shard is damaged: make it again."
            )
        # On a GPU, reading the extremes would stop the queue in every step; there the lookup's own assertion
        # refuses ids that are out of range.
        if not ids.is_cuda:
            self.check_ids(ids)

    def _check_loaded(self) -> None:
        if not self.codebook:
            raise RuntimeError(f"The codebook over {self.name!r} has no codes yet; call load() first.")


class ResidualCodebookLearner(CodebookLearner):
    """Learns a residual codebook over a frozen encoder's features.

    The first batch starts every level by k-means; later batches move the codes by moving averages (van den Oord et
    al., arXiv 1711.00937, appendix A.1), and codes that nobody uses start again at a feature of the batch.

    Args:
        encoder: Makes the features.
        codebook_size: Number of codes of a level.
        num_levels: L, residual levels.
        decay: Share of the old average that is kept in each step, 0 to 1.
        revival_threshold: Codes that are chosen less often than this in a step, on average, start again.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
        >>> learner = ResidualCodebookLearner(TinyImageTokenizer(), codebook_size=4, num_levels=2)
        >>> learner.load()
        >>> learner.quantize(tiny_batch().image).ids.shape
        torch.Size([2, 4, 2])
    """

    started: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        codebook_size: int = 1024,
        num_levels: int = 4,
        decay: float = 0.95,
        revival_threshold: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.codebook_size = codebook_size
        self.num_levels = num_levels
        self.quantizer: ResidualVQ | None = None
        self.register_buffer("started", torch.tensor(False))
        self._decay = decay
        self._revival_threshold = revival_threshold

    def load(self) -> None:
        """Bring the encoder's weights; make the averages, now that it is known whether other processes share them."""
        self.encoder.load()
        if self.quantizer is None:
            self.quantizer = ResidualVQ(
                dim=self.encoder.embed_dim,
                codebook_size=self.codebook_size,
                num_quantizers=self.num_levels,
                decay=self._decay,
                threshold_ema_dead_code=self._revival_threshold,
                kmeans_init=True,
                commitment_weight=0.0,  # nothing is learnt by a gradient
                rotation_trick=False,
                sync_codebook=torch.distributed.is_initialized(),
            ).to(self.started.device)

    def quantize(self, pixels: Pixels) -> Quantization:
        """Encode and quantise pictures; in training the codebook moves along.

        Raises:
            RuntimeError: If ``load()`` was not called, or the codebook saw no training batch yet.
        """
        return self.quantize_features(self.encoder.encode_pixels(pixels))

    @torch.no_grad()
    def quantize_features(self, features: Float[Tensor, "batch tokens dim"]) -> Quantization:
        """Quantise features that were made beforehand; in training the codebook moves along.

        Raises:
            RuntimeError: If ``load()`` was not called, or the codebook saw no training batch yet.
        """
        quantizer = self._loaded()
        if self.training:
            self.started.fill_(True)
        elif not self.started:
            # The library would start from whatever comes first, were it a picture that is held out.
            raise RuntimeError("The codebook has not started; it starts at the first batch in training mode.")
        # Distances need all their digits: neighbours of a code often differ in the third.
        with torch.autocast(features.device.type, enabled=False):
            flat = rearrange(features.float(), "b n d -> 1 (b n) d")
            quantized, ids, _ = quantizer(flat)
        return Quantization(
            features=features.float(),
            quantized=cast(Tensor, quantized).view_as(features),
            ids=rearrange(ids, "1 (b n) l -> b n l", b=len(features)),
        )

    def export(self, folder: Path) -> None:
        """Write what :class:`QuantizedEncoder` loads.

        Raises:
            OSError: If the folder cannot be written.
            RuntimeError: If ``load()`` was not called, or the codebook saw no training batch yet.
        """
        quantizer = self._loaded()
        if not self.started:
            raise RuntimeError("The codebook has not started, there is nothing to export; train for one step or more.")
        config = {"encoder": self.encoder.name, "codebook_size": self.codebook_size, "num_levels": self.num_levels}
        with write_files(folder) as draft:
            codes = cast(Tensor, quantizer.codebooks).float().cpu().contiguous()
            write_safetensors({"codes": codes}, draft / _CODES)
            (draft / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    def _loaded(self) -> ResidualVQ:
        if self.quantizer is None:
            raise RuntimeError("The codebook has no averages yet; call load() first.")
        return self.quantizer


def _nearest(
    features: Float[Tensor, "batch tokens dim"], codes: Float[Tensor, "levels codes dim"]
) -> Int[Tensor, "batch tokens levels"]:
    ids: list[Tensor] = []
    with torch.autocast(features.device.type, enabled=False):  # as in ResidualCodebookLearner.quantize_features
        residual = features.float()
        for level in codes:
            # |x - c|^2 without |x|^2, which is the same for all codes.
            ids.append((level.square().sum(-1) - 2 * residual @ level.T).argmin(-1))
            residual = residual - level[ids[-1]]
    return torch.stack(ids, dim=-1)
