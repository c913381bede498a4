"""Residual vector quantization of a frozen encoder's features, which turns the encoder into an image tokenizer.

Each level after the first quantizes the residual of the levels before (Juang and Gray, 1982; Zeghidour et al., arXiv
2107.03312). Nearest codes are invariant to a common shift and scale, so features are quantized without normalization.
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from synth2_lightning.encoders.feature_cache import FeatureCache
from synth2_lightning.interfaces import ImageEncoder, ImageTokenizer, Loadable
from synth2_lightning.io.atomic import write_files
from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.fingerprints import fingerprint_codebook
from synth2_lightning.io.json_text import read_description
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.precision import full_float32
from synth2_lightning.io.safetensors import read_safetensors, write_safetensors
from synth2_lightning.nn.nearest_codes import nearest_codes
from synth2_lightning.types import Pixels, Quantization, VQTokens

_CONFIG = "codebook.json"
_CODES = "codebook.safetensors"


class QuantizedEncoder(ImageTokenizer):
    """Frozen encoder with a trained codebook over its features.

    Token embeddings are in the encoder's feature space, so they can be mixed with its continuous features.

    Args:
        encoder: Encoder of the features that the codebook was trained on.
        codebook: Location of a folder that :meth:`ResidualCodebookLearner.export` wrote.
        num_levels: Number of levels to use, coarsest first; all by default. Levels are nested: the first ones equal
            those of a codebook trained with fewer levels.
        quantize_pixels: Whether photos are quantized, too, as in Synth², so that real and synthetic images have the
            same codes. If false, photos keep their continuous features without loss, but are distinguishable from
            synthetic images.

    Raises:
        FileNotFoundError: If the codebook does not exist.
        ValueError: If the codebook was trained on another encoder, or has fewer levels.

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
            resolve(folder / _CONFIG, "codebook's description, which `CodebookModule` writes,"),
            {"encoder": str, "codebook_size": int, "num_levels": int},
            "the format that `CodebookModule` writes",
        )
        if config["encoder"] != encoder.name:
            raise ValueError(
                f"The codebook {codebook!r} expected features of encoder {config['encoder']!r}, but got encoder "
                f"{encoder.name!r}. Use the expected encoder, or train another codebook "
                "(modules.codebook.CodebookModule)."
            )
        self.num_levels = config["num_levels"] if num_levels is None else num_levels
        if config["codebook_size"] < 1:
            raise ValueError(
                f"The codebook {codebook!r} has codebook_size={config['codebook_size']}; expected 1 or more."
            )
        if not 1 <= self.num_levels <= config["num_levels"]:
            raise ValueError(
                f"QuantizedEncoder got num_levels={self.num_levels} for codebook {codebook!r}; expected 1 to "
                f"{config['num_levels']} levels."
            )
        self.encoder = encoder
        self.name = encoder.name
        self.num_tokens = encoder.num_tokens
        self.embed_dim = encoder.embed_dim
        self.image_size = encoder.image_size
        self.codebook_size = config["codebook_size"]
        self._num_trained = config["num_levels"]
        self.codebook = ""
        self.quantize_pixels = quantize_pixels
        self._folder = folder
        codes = torch.zeros(self.num_levels, self.codebook_size, self.embed_dim)
        self.register_buffer("codes", codes, persistent=False)

    def _load(self) -> None:
        self.encoder.load()
        path = resolve(self._folder / _CODES, "codebook's codes")
        weights = read_safetensors(path)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        expected = {"codes": (self._num_trained, self.codebook_size, self.embed_dim)}
        if shapes != expected:
            raise ValueError(
                f"{path} has tensors of the shapes {shapes}; expected {expected}, as in {_CONFIG} and as the encoder's "
                "features are wide. Train or download the codebook again."
            )
        codes = weights["codes"][: self.num_levels].contiguous()
        self.codes.copy_(codes)
        self.codebook = fingerprint_codebook(self.name, codes, self.image_size)

    def _tokenize(self, pixels: Pixels) -> VQTokens:
        self._check_loaded()
        return VQTokens(nearest_codes(self.encoder.encode_pixels(pixels), self.codes), self.codebook)

    @torch.no_grad()
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Return the sum of the nearest codes, or continuous features if ``quantize_pixels`` is false."""
        if not self.quantize_pixels:
            return self.encoder.encode_pixels(pixels)
        return self._look_up(self.tokenize(pixels).ids)

    @torch.no_grad()
    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Return the sum of the codes over the levels.

        Raises:
            ValueError: If the ids belong to another codebook, are out of range, or have another number of levels.
        """
        self._check_loaded()
        self.check_tokens(tokens)
        return self._look_up(tokens.ids)

    def _look_up(self, ids: Int[Tensor, "batch tokens levels"]) -> Float[Tensor, "batch tokens dim"]:
        return torch.stack([codes[level] for codes, level in zip(self.codes, ids.unbind(2), strict=True)]).sum(0)

    def _check_loaded(self) -> None:
        if not self.codebook:
            raise RuntimeError(f"The codebook of {self.name!r} is not loaded; call load() first.")


class CodebookLearner(Loadable, nn.Module, ABC):
    """Codebook under training over a frozen encoder's features, updated without gradients.

    Attributes:
        codebook_size: Number of codes per level.
        num_levels: Number of residual levels.
    """

    codebook_size: int
    num_levels: int

    @abstractmethod
    def quantize(self, pixels: Pixels) -> Quantization:
        """Encode and quantize images of any height and width; in training mode, update the codebook."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the codebook.

        Raises:
            OSError: If the folder cannot be written.
        """


class ResidualCodebookLearner(CodebookLearner):
    """Residual codebook under training over a frozen encoder's features.

    K-means on the first batch initializes every level; later batches update the codes by moving averages (van den Oord
    et al., arXiv 1711.00937, appendix A.1). Dead codes are re-initialized with features of the batch. Features are kept
    in a :class:`~synth2_lightning.encoders.feature_cache.FeatureCache`, so that each process encodes an image once.

    Args:
        encoder: Frozen encoder of the features.
        codebook_size: Number of codes per level.
        num_levels: Number of residual levels.
        decay: Weight of the old average in each step, 0 to below 1.
        revival_threshold: Codes whose average count per step falls below this are re-initialized.
        cache_gib: Maximum size of the features on disk, in GiB per process; 0 encodes an image in every epoch.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
        >>> learner = ResidualCodebookLearner(TinyImageTokenizer(), codebook_size=4, num_levels=2)
        >>> learner.load()
        >>> learner.quantize(tiny_batch().image).ids.shape
        torch.Size([2, 4, 2])
    """

    initted: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        codebook_size: int = 1024,
        num_levels: int = 4,
        decay: float = 0.95,
        revival_threshold: float = 0.1,
        cache_gib: float = 4.0,
    ) -> None:
        require_extra("vector_quantize_pytorch", "codebook")
        super().__init__()
        if min(codebook_size, num_levels) < 1 or not 0 <= decay < 1:
            raise ValueError(
                f"ResidualCodebookLearner got codebook_size={codebook_size}, num_levels={num_levels} and "
                f"decay={decay}; expected 1 or more of the first two, and a decay of 0 to below 1."
            )
        self.encoder = encoder
        self.codebook_size = codebook_size
        self.num_levels = num_levels
        self.quantizer: Any = None
        self.register_buffer("initted", torch.tensor(False))
        self._decay = decay
        self._revival_threshold = revival_threshold
        self._features = FeatureCache(encoder, cache_gib)

    def _load(self) -> None:
        """Read the encoder and create the codebook, which synchronizes over an initialized process group."""
        from vector_quantize_pytorch import ResidualVQ

        self.encoder.load()
        self.quantizer = ResidualVQ(
            dim=self.encoder.embed_dim,
            codebook_size=self.codebook_size,
            num_quantizers=self.num_levels,
            decay=self._decay,
            threshold_ema_dead_code=self._revival_threshold,
            kmeans_init=True,
            commitment_weight=0.0,  # codes are moving averages and need no loss
            rotation_trick=False,
            sync_codebook=torch.distributed.is_initialized(),
        ).to(self.initted.device)

    def quantize(self, pixels: Pixels) -> Quantization:
        """Encode images in float32, and quantize them as :meth:`quantize_features` does."""
        with full_float32(pixels.values.device):
            return self.quantize_features(self._features.encode(pixels))

    @torch.no_grad()
    def quantize_features(self, features: Float[Tensor, "batch tokens dim"]) -> Quantization:
        """Quantize precomputed features; in training mode, update the codebook.

        Raises:
            ValueError: If there was no training batch yet.
        """
        quantizer = self._loaded()
        if self.training:
            self.initted.fill_(True)
        elif not self.initted:
            # Otherwise the library would initialize the codes with held-out images.
            raise ValueError(
                "The codebook is not initialized; expected a batch in training mode first. Give a checkpoint "
                "(--ckpt_path) to validate or test."
            )
        with full_float32(features.device):  # distances of neighboring codes often differ only in the third digit
            flat = rearrange(features.float(), "b n d -> 1 (b n) d")
            quantized, ids, _ = quantizer(flat)
        return Quantization(
            features=features.float(),
            quantized=quantized.view_as(features),
            ids=rearrange(ids, "1 (b n) l -> b n l", b=len(features)),
        )

    def export(self, folder: Path) -> None:
        """Write the folder that :class:`QuantizedEncoder` loads.

        Raises:
            OSError: If the folder cannot be written.
            RuntimeError: If there was no training batch yet.
        """
        quantizer = self._loaded()
        if not self.initted:
            raise RuntimeError("The codebook is not initialized; train for at least one step before export().")
        config = {"encoder": self.encoder.name, "codebook_size": self.codebook_size, "num_levels": self.num_levels}
        with write_files(folder) as draft:
            codes = quantizer.codebooks.float().cpu().contiguous()
            write_safetensors({"codes": codes}, draft / _CODES)
            (draft / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    def _loaded(self) -> Any:
        if self.quantizer is None:
            raise RuntimeError("The codebook is not loaded; call load() first.")
        return self.quantizer
