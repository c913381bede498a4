"""MUSE (Chang et al., arXiv 2301.00704) that generates image tokens of the captioner's encoder, not pixels."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from synth2_lightning.interfaces import ImageGenerator, ImageTokenizer, TextEncoder
from synth2_lightning.io.atomic import write_files
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.io.json_text import read_description
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.safetensors import read_safetensors, write_safetensors
from synth2_lightning.nn.condition_text import encode_conditions
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.parallel_decoding import MaskGitSampling, decode_in_parallel, noise_shape
from synth2_lightning.nn.unmasking import ConfidenceOrder, UnmaskingOrder
from synth2_lightning.types import Condition, VQTokens

_CONFIG = "generator.json"
_WEIGHTS = "generator.safetensors"
_CARD = "README.md"
GENERATOR_FILES = (_CONFIG, _WEIGHTS)
"""Files of a saved generator, besides its card."""
_NETWORK, _TEXT = "network.", "text_encoder."


def save_generator(
    folder: Path, network: MaskGit, text_encoder: TextEncoder, codebook: str, card: str = "", is_writer: bool = True
) -> None:
    """Write a trained generator in half precision, for :class:`MuseGenerator` to load.

    With sharded weights, all ranks must call this function, because it gathers them.

    Args:
        folder: Output folder; created if it does not exist.
        network: Trained network.
        text_encoder: Text encoder of the training; its trainable weights are included.
        codebook: Fingerprint of the codebook whose ids the network predicts.
        card: Content of ``README.md``; without one, the file is not written.
        is_writer: Whether this rank writes the files.

    Raises:
        OSError: If the folder cannot be written.
    """
    weights = {_NETWORK + name: weight for name, weight in network.state_dict().items()}
    trained = {name: weight for name, weight in text_encoder.named_parameters() if weight.requires_grad}
    weights |= {_TEXT + name: weight for name, weight in trained.items()}
    full = {name: _gather(weight.detach()).cpu().half().contiguous() for name, weight in weights.items()}
    if not is_writer:
        return
    config = {"codebook": codebook, "text_encoder": text_encoder.name, "network": network.sizes}
    with write_files(folder) as draft:
        write_safetensors(full, draft / _WEIGHTS)
        (draft / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        if card:
            (draft / _CARD).write_text(card, "utf-8")


class MuseGenerator(ImageGenerator):
    """Samples image tokens from captions by parallel decoding.

    Args:
        generator: Location of a folder that a fit of :class:`~synth2_lightning.modules.muse.MuseModule` wrote.
        tokenizer: Image tokenizer of the generator's training.
        text_encoder: Text encoder of the generator's training.
        sampling: Steps, guidance and temperature.
        order: Order in which tokens are unmasked.
        negative_text: Text of the unconditional branch of guidance; null conditioning if empty.
        compile_network: Compile the network's layers by ``torch.compile`` before the first images;
            ``benchmarks/gpu.py`` measures the effect.

    Raises:
        FileNotFoundError: If the generator does not exist.
        ValueError: If the generator was trained with another text encoder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyTextEncoder
        >>> tokenizer, text_encoder = TinyImageTokenizer(), TinyTextEncoder()
        >>> network = MaskGit(6, 16, 1, (2, 2), text_dim=8, width=16, depth=1, num_heads=2)
        >>> with TemporaryDirectory() as folder:
        ...     save_generator(Path(folder), network, text_encoder, tokenizer.codebook)
        ...     generator = MuseGenerator(folder, tokenizer, text_encoder, MaskGitSampling(num_steps=2))
        ...     generator.load()
        >>> generator.generate(["a bright field"], seeds=[0]).ids.shape
        torch.Size([1, 4, 1])
    """

    def __init__(
        self,
        generator: str,
        tokenizer: ImageTokenizer,
        text_encoder: TextEncoder,
        sampling: MaskGitSampling = MaskGitSampling(),  # noqa: B008 - frozen; jsonargparse reads the default
        order: UnmaskingOrder = ConfidenceOrder(),  # noqa: B008 - without state
        negative_text: str = "",
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        self._folder = resolve(generator, "generator")
        config = read_description(
            resolve(
                self._folder / _CONFIG, "generator's description, which `synth2 fit --config generator.yaml` writes,"
            ),
            {"codebook": str, "text_encoder": str, "network": dict},
            "the format that `synth2 fit --config generator.yaml` writes",
        )
        if config["text_encoder"] != text_encoder.name:
            raise ValueError(
                f"The generator {generator!r} was trained with text encoder {config['text_encoder']!r}, but got "
                f"{text_encoder.name!r}; expected the same. Use that encoder, or train another generator "
                "(`synth2 fit --config generator.yaml`)."
            )
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.network = MaskGit(**config["network"])
        self.sampling = sampling
        self.order = order
        self.negative_text = negative_text
        self.codebook_size = tokenizer.codebook_size
        self.fingerprint = ""
        self._codebook: str = config["codebook"]
        self._compile_network = compile_network

    def _load(self) -> None:
        self.tokenizer.load()
        self.text_encoder.load()
        if self._codebook != self.tokenizer.codebook:
            raise ValueError(
                f"The generator in {self._folder} expected codebook {self._codebook!r}, but the tokenizer's is "
                f"{self.tokenizer.codebook!r}. Use the tokenizer of the generator's training, or train another "
                "generator (`synth2 fit --config generator.yaml`)."
            )
        path = resolve(self._folder / _WEIGHTS, "generator's weights")
        weights = read_safetensors(path)
        self.network.load_state_dict(_without_prefix(weights, _NETWORK))
        self.text_encoder.load_state_dict(self.text_encoder.state_dict() | _without_prefix(weights, _TEXT))
        if self._compile_network:
            self.network.compile_layers()
        with path.open("rb") as file:
            self.fingerprint = f"muse:{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"

    def provenance(self) -> dict[str, Any]:
        """Return fingerprints of the weights and every argument of the sampler."""
        return {
            "generator": self.fingerprint,
            "codebook": self._codebook,
            "text_encoder": self.text_encoder.name,
            "text_encoder_weights": fingerprint_weights(self.text_encoder.name, self.text_encoder),
            "sampling": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.sampling).items()},
            "order": {"name": type(self.order).__name__, **vars(self.order)},
            "negative_text": self.negative_text,
        }

    @torch.no_grad()
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        """Return the tokens of one image per caption; they depend on caption and seed, not on the batch.

        An image of several captions attends to the token embeddings of all of them.
        """
        self.check_request(captions, seeds)
        if not self.fingerprint:
            raise RuntimeError("MuseGenerator is not loaded; call load() before generate().")
        networks = self.network, self.tokenizer, self.text_encoder
        return sample_image_tokens(*networks, captions, seeds, self.sampling, self.order, self.negative_text)


def sample_image_tokens(
    network: MaskGit,
    tokenizer: ImageTokenizer,
    text_encoder: TextEncoder,
    captions: Sequence[Condition],
    seeds: Sequence[int],
    sampling: MaskGitSampling,
    order: UnmaskingOrder,
    negative_text: str = "",
) -> VQTokens:
    """Sample the tokens of one image per caption; the networks must be in evaluation mode."""
    texts = [*captions, negative_text] if sampling.is_guided and negative_text else captions
    embeddings, mask = encode_conditions(text_encoder, texts)
    text = network.encode_text(embeddings[: len(captions)], mask[: len(captions)])
    null_text = None
    if sampling.is_guided:
        length = None if negative_text else 1  # the null conditioning is a single token
        null = embeddings[-1:, :length], mask[-1:, :length]
        is_null = torch.full((1,), not negative_text, device=embeddings.device)
        null_text = network.encode_text(*null, is_null)
    shape = noise_shape(network, sampling)
    # On the CPU, so that the numbers do not depend on the GPU.
    uniform = torch.stack([torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    codebook = tokenizer.codebook

    def embed(ids: Tensor) -> Tensor:
        return tokenizer.embed_tokens(VQTokens(ids, codebook))

    uniform = uniform.to(embeddings.device)
    return VQTokens(decode_in_parallel(network, embed, text, null_text, uniform, sampling, order), codebook)


def _gather(weight: Tensor) -> Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _without_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
