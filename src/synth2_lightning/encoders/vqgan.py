"""VQ-GAN (Esser et al., arXiv 2012.09841), wrapping diffusers' ``VQModel``: frozen tokenizer and trainable model."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.encoders.frozen import FrozenEncoder, Preprocessing
from synth2_lightning.interfaces import ImageTokenizer, Loadable
from synth2_lightning.io.atomic import write_files
from synth2_lightning.io.fingerprints import fingerprint_codebook
from synth2_lightning.io.locations import is_here, locate_model
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.precision import full_float32
from synth2_lightning.nn.moving_codebook import MovingCodebook, spherical
from synth2_lightning.nn.nearest_codes import nearest_codes
from synth2_lightning.types import Pixels, Reconstruction, VQTokens

_HALF = (0.5, 0.5, 0.5)


class VQGANTokenizer(FrozenEncoder[VQModel], ImageTokenizer):
    """Pretrained VQ-GAN: encodes images as codebook ids in raster order, decodes ids to codebook vectors or images.

    Args:
        model: Folder in diffusers' layout (``config.json`` and ``*.safetensors``) as a path, ``package://`` or
            ``weights://``; anything else is a Hugging Face Hub id, such as ``amused/amused-256``.
        image_size: Height and width in pixels of the network's input; by default the ``sample_size`` of the model's
            configuration. Some published configurations contain an unrelated number, such as aMUSEd's.
        subfolder: Folder inside ``model``, such as ``vqvae``.
        name: First part of the codebook's fingerprint, and the identity of the embeddings.
        pixel_range: Values of black and white pixels: (-1, 1) for most VQ-GANs, (0, 1) for aMUSEd's.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If ``image_size`` is not a multiple of the patch size.

    Example:
        >>> tokenizer = VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
        >>> tokenizer.num_tokens
        64
    """

    num_levels = 1

    def __init__(
        self,
        model: str,
        image_size: int | None = None,
        subfolder: str = "",
        name: str = "vqgan",
        pixel_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        self._model = locate_model(model, "VQ-GAN")
        self._subfolder = subfolder or None
        config = _read_config(self._model, self._subfolder)
        image_size = image_size or int(config["sample_size"])
        with torch.device("meta"):
            blueprint = VQModel.from_config(config)
        _check_size(image_size, len(blueprint.config.block_out_channels))
        low, high = pixel_range
        if not low < high:
            raise ValueError(f"VQGANTokenizer got pixel_range={pixel_range}; expected a lower and a higher bound.")
        mean, std = -low / (high - low), 1 / (high - low)
        super().__init__(name, Preprocessing(image_size, mean=(mean,) * 3, std=(std,) * 3), blueprint)
        self.codebook_size = config["num_vq_embeddings"]
        self.codebook = ""
        self._pixel_range = pixel_range

    def build_network(self) -> VQModel:
        """Return the VQ-GAN with its weights."""
        return VQModel.from_pretrained(
            self._model,
            subfolder=self._subfolder,
            use_safetensors=True,
            local_files_only=is_here(self._model),
            low_cpu_mem_usage=False,  # the default warns where accelerate is not installed
        )

    def _load(self) -> None:
        super()._load()
        self.codebook = fingerprint_codebook(self.name, self._vectors, self.image_size, self._pixel_range)

    def feature_map(
        self, network: VQModel, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Return the encoder's output before quantization."""
        latents: Tensor = network.encode(images).latents
        return latents

    def _tokenize(self, pixels: Pixels) -> VQTokens:
        latents = super().encode_pixels(pixels)
        return VQTokens(nearest_codes(latents, self._vectors[None]), self.codebook)

    @torch.no_grad()
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Return the codebook vectors of the nearest codes."""
        return self._vectors[self.tokenize(pixels).ids[..., 0]]

    @torch.no_grad()
    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Return the codebook vectors of ids.

        Raises:
            ValueError: If the ids belong to another codebook, are out of range, or have more than one level.
        """
        self.check_tokens(tokens)
        return self._vectors[tokens.ids[..., 0]]

    @torch.no_grad()
    def detokenize(self, tokens: VQTokens) -> Pixels:
        """Decode ids into images.

        Raises:
            ValueError: If :meth:`embed_tokens` rejects the ids, or their number per image is not a square.
        """
        side = math.isqrt(tokens.ids.shape[1])
        if side**2 != tokens.ids.shape[1]:
            raise ValueError(
                f"An image of {tokens.ids.shape[1]} tokens cannot be decoded; expected a square number of tokens, such "
                f"as the {self.num_tokens} of {self.name!r}."
            )
        codes = rearrange(self.embed_tokens(tokens), "b (h w) d -> b d h w", h=side)
        images = _decode(self.network, codes).float() * self.std + self.mean
        return Pixels((images * 255).round().clamp(0, 255).to(torch.uint8))

    @property
    def _vectors(self) -> Float[Tensor, "codes dim"]:
        if self.network is None:
            raise RuntimeError(f"The codebook of tokenizer {self.name!r} is not loaded; call load() first.")
        vectors: Tensor = self.network.quantize.embedding.weight
        return vectors


class TrainableTokenizer(Loadable, nn.Module, ABC):
    """Differentiable tokenizer under training: encodes, quantizes and reconstructs images.

    Not an :class:`ImageTokenizer`, because the codebook still changes; ``export`` writes the weights of one.

    Attributes:
        codebook_size: Number of codes of a level.
    """

    codebook_size: int

    @abstractmethod
    def reconstruct(self, pixels: Pixels) -> Reconstruction:
        """Encode, quantize and decode images of any height and width; in training mode, update the codebook."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the weights that the frozen tokenizer loads.

        Raises:
            OSError: If the folder cannot be written.
        """


class TrainableVQGAN(TrainableTokenizer):
    """Trainable VQ-GAN: gradients train encoder and decoder, moving averages the codebook.

    Args:
        image_size: Height and width in pixels of the network's input.
        codebook_size: Number of codes.
        embed_dim: Width of a code.
        block_out_channels: Channels per resolution, each half the one before; the patch size of a token is 2 to the
            power of the number of halvings.
        layers_per_block: Residual blocks per resolution; the decoder has one more.
        norm_num_groups: Groups of the group norms; must divide all channels.
        decay: See :class:`~synth2_lightning.nn.moving_codebook.MovingCodebook`.
        revival_threshold: See :class:`~synth2_lightning.nn.moving_codebook.MovingCodebook`.
        num_free_batches: See :class:`~synth2_lightning.nn.moving_codebook.MovingCodebook`.

    Raises:
        ValueError: If ``image_size`` is not a multiple of the patch size.

    Example:
        >>> vqgan = TrainableVQGAN(image_size=16, codebook_size=8, embed_dim=4, block_out_channels=(8, 8))
        >>> vqgan.reconstruct(Pixels(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))).ids.shape
        torch.Size([2, 64, 1])
    """

    def __init__(
        self,
        image_size: int,
        codebook_size: int = 512,
        embed_dim: int = 32,
        block_out_channels: Sequence[int] = (16, 16, 32, 64),
        layers_per_block: int = 1,
        norm_num_groups: int = 8,
        decay: float = 0.97,
        revival_threshold: float = 0.02,
        num_free_batches: int = 0,
    ) -> None:
        super().__init__()
        _check_size(image_size, len(block_out_channels))
        self.codebook_size = codebook_size
        self.preprocessing = Preprocessing(image_size, mean=_HALF, std=_HALF)
        self.network = VQModel(
            sample_size=image_size,
            down_block_types=("DownEncoderBlock2D",) * len(block_out_channels),
            up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            latent_channels=embed_dim,
            vq_embed_dim=embed_dim,
            num_vq_embeddings=codebook_size,
            mid_block_add_attention=False,  # keeps tokens local, so that they can be recombined
        ).to(memory_format=torch.channels_last)
        self.network.quantize.requires_grad_(False)  # replaced by self.codebook until the export
        self.codebook = MovingCodebook(codebook_size, embed_dim, decay, revival_threshold, num_free_batches)

    def reconstruct(self, pixels: Pixels) -> Reconstruction:
        """Return the reconstruction; in training mode, update the codebook."""
        images = self.preprocessing.frame(pixels.values).to(self.network.dtype) / 127.5 - 1
        latents = self.network.encode(images.contiguous(memory_format=torch.channels_last)).latents
        flat = spherical(rearrange(latents, "b d h w -> (b h w) d"))
        with full_float32(flat.device):
            codes, ids = self.codebook(flat)
        commitment = (flat - codes.detach()).square().mean()
        decoded = _decode(self.network, rearrange(codes, "(b h w) d -> b d h w", b=len(images), h=latents.shape[2]))
        return Reconstruction(
            pixels=decoded,
            target=images,
            commitment=commitment,
            ids=rearrange(ids, "(b n) -> b n 1", b=len(images)),
            num_revived=self.codebook.num_revived,
        )

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the weights for :class:`VQGANTokenizer`; warn and write nothing if quantization has not started."""
        if not self.codebook.initted:
            warnings.warn(
                f"No VQ-GAN was written to {folder}: it was trained on {int(self.codebook.num_batches)} training "
                f"batches, and quantization starts after num_free_batches={self.codebook.num_free_batches}. Train "
                "longer, or set the tokenizer's num_free_batches to 0.",
                stacklevel=2,
            )
            return
        self.network.quantize.embedding.weight.copy_(self.codebook.embed)
        with write_files(folder) as draft:
            self.network.save_pretrained(draft)


def _read_config(model: str, subfolder: str | None) -> dict[str, Any]:
    try:
        config: dict[str, Any] = VQModel.load_config(model, subfolder=subfolder, local_files_only=is_here(model))
    except OSError as error:
        reason = one_line(error)
        raise OSError(
            f"The config.json of VQ-GAN {model} cannot be read: {reason}. Expected the folder or Hub id of a diffusers "
            "VQModel, and its subfolder."
        ) from error
    for key in ("sample_size", "num_vq_embeddings"):
        if not isinstance(config.get(key), int):
            raise ValueError(
                f"The config.json of VQ-GAN {model} has {key}={config.get(key)!r}; expected a whole number, "
                "as in the folder of a diffusers VQModel."
            )
    return config


def _check_size(image_size: int, num_blocks: int) -> None:
    stride = 2 ** (num_blocks - 1)
    if image_size < 1 or image_size % stride:
        raise ValueError(
            f"image_size={image_size} is not divisible by the patch size of {stride} pixels; expected a multiple of "
            f"{stride}."
        )


def _decode(network: VQModel, codes: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch 3 height width"]:
    # VQModel.decode would quantize again or look ids up, depending on the configuration.
    spatial = codes if network.config.norm_type == "spatial" else None
    images: Tensor = network.decoder(network.post_quant_conv(codes), spatial)
    return images
