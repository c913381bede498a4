"""MUSE (Chang et al., arXiv 2301.00704) without its pixels: captions become image tokens of the captioner's encoder."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from synth2_lightning.files import write_files
from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.interfaces import ImageGenerator, ImageTokenizer, TextEncoder
from synth2_lightning.jsontext import read_description
from synth2_lightning.locations import resolve
from synth2_lightning.nn.maskgit import MaskGit, TextMemory
from synth2_lightning.nn.parallel_decoding import SamplingSettings, count_draws, decode_in_parallel
from synth2_lightning.nn.unmasking import ConfidenceOrder, UnmaskingOrder
from synth2_lightning.types import SoftVQTokens, VQTokens
from synth2_lightning.weight_files import read_safetensors, write_safetensors

_CONFIG = "generator.json"
_WEIGHTS = "generator.safetensors"
_NETWORK, _TEXT = "network.", "text_encoder."


def save_generator(
    folder: Path, network: MaskGit, text_encoder: TextEncoder, codebook: str, is_writer: bool = True
) -> None:
    """Write a trained generator, for :class:`MuseGenerator` to load.

    In half precision: drawing needs no more, and checkpoints hold the rest. Where weights are sharded, all processes
    must call it, to bring them together.

    Args:
        folder: Where it goes; made if it is not there.
        network: What was trained.
        text_encoder: What it was conditioned on; its weights go along where they were trained, too.
        codebook: Fingerprint of the codebook whose ids it guesses.
        is_writer: Whether this process is the one that writes.

    Raises:
        OSError: If the folder cannot be written.
    """
    weights = {_NETWORK + name: weight for name, weight in network.state_dict().items()}
    learnt = {name: weight for name, weight in text_encoder.named_parameters() if weight.requires_grad}
    weights |= {_TEXT + name: weight for name, weight in learnt.items()}
    whole = {name: _whole(weight.detach()).cpu().half().contiguous() for name, weight in weights.items()}
    if not is_writer:
        return
    config = {"codebook": codebook, "text_encoder": text_encoder.name, "network": network.sizes}
    with write_files(folder) as draft:
        write_safetensors(whole, draft / _WEIGHTS)
        (draft / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


class MuseGenerator(ImageGenerator):
    """Draws image tokens for captions by parallel decoding.

    Args:
        generator: Location of a folder that a fit of :class:`~synth2_lightning.modules.muse.MuseModule` wrote.
        tokenizer: The one whose codes it learnt to guess.
        text_encoder: The one that it was conditioned on.
        sampling: Steps, guidance, temperature.
        order: Which tokens a step reveals.
        negative_text: What guidance moves away from; empty for the null text of the training.
        num_candidates: Give the likeliest codes of every token with their probabilities (:class:`SoftVQTokens`) rather
            than the code that was drawn; ``None`` gives the drawn code.
        compile_network: Run the network through ``torch.compile``: worth it for many captions.

    Raises:
        FileNotFoundError: If no generator lies there.
        ValueError: If it was trained with another text encoder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyTextEncoder
        >>> tokenizer, text_encoder = TinyImageTokenizer(), TinyTextEncoder()
        >>> network = MaskGit(6, 16, 1, (2, 2), text_dim=8, width=16, depth=1, num_heads=2)
        >>> with TemporaryDirectory() as folder:
        ...     save_generator(Path(folder), network, text_encoder, tokenizer.codebook)
        ...     generator = MuseGenerator(folder, tokenizer, text_encoder, SamplingSettings(num_steps=2))
        ...     generator.load()
        >>> generator.generate(["a bright field"], seeds=[0]).ids.shape
        torch.Size([1, 4, 1])
    """

    def __init__(
        self,
        generator: str,
        tokenizer: ImageTokenizer,
        text_encoder: TextEncoder,
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 - frozen, and read by the command line
        order: UnmaskingOrder = ConfidenceOrder(),  # noqa: B008 - without state
        negative_text: str = "",
        num_candidates: int | None = None,
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        self._folder = resolve(generator, "generator")
        config = read_description(
            resolve(self._folder / _CONFIG, "generator's description"),
            {"codebook": str, "text_encoder": str, "network": dict},
            "what `synth2 fit --config generator.yaml` writes",
        )
        if config["text_encoder"] != text_encoder.name:
            raise ValueError(
                f"The generator {generator!r} was conditioned on the text encoder {config['text_encoder']!r}, but was "
                f"given {text_encoder.name!r}, whose embeddings it cannot read. Use that encoder, or train a generator "
                "with this one (`synth2 fit --config generator.yaml`)."
            )
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.network = MaskGit(**config["network"])
        self.sampling = sampling
        self.order = order
        self.negative_text = negative_text
        self.num_candidates = num_candidates
        self.codebook_size = tokenizer.codebook_size
        self.fingerprint = ""
        self._codebook: str = config["codebook"]
        self._compile_network = compile_network
        self._null_memory: TextMemory | None = None

    def load(self) -> None:
        """Bring the weights of all parts.

        Raises:
            ValueError: If the generator speaks another codebook than the tokenizer.
        """
        if self.fingerprint:
            return
        self.tokenizer.load()
        self.text_encoder.load()
        if self._codebook != self.tokenizer.codebook:
            raise ValueError(
                f"The generator in {self._folder} guesses codes of codebook {self._codebook!r}, but the tokenizer's is "
                f"{self.tokenizer.codebook!r}: the same ids would mean other things. Use the tokenizer that it learnt "
                "with, or train a generator with this one (`synth2 fit --config generator.yaml`)."
            )
        path = resolve(self._folder / _WEIGHTS, "generator's weights")
        weights = read_safetensors(path)
        self.network.load_state_dict(_without_prefix(weights, _NETWORK))
        self.text_encoder.load_state_dict(self.text_encoder.state_dict() | _without_prefix(weights, _TEXT))
        self.requires_grad_(False).eval()
        if self._compile_network:
            self.network.compile()
        with path.open("rb") as file:
            self.fingerprint = f"muse:{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"

    def provenance(self) -> dict[str, Any]:
        """What a reader of the tokens must know about how they were drawn."""
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
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens | SoftVQTokens:
        """Draw the tokens of one picture per caption; a caption and its seed give the same ones in any batch.

        Raises:
            RuntimeError: If ``load()`` was not called.
            ValueError: If a caption is empty, or there are not as many seeds as captions.
        """
        self.check_request(captions, seeds)
        if not self.fingerprint:
            raise RuntimeError("The generator has no weights yet; call load() before generating.")
        return draw_tokens(
            self.network,
            self.tokenizer,
            self.text_encoder,
            captions,
            seeds,
            self.sampling,
            self.order,
            self.negative_text,
            self.num_candidates,
        )


def draw_tokens(
    network: MaskGit,
    tokenizer: ImageTokenizer,
    text_encoder: TextEncoder,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingSettings,
    order: UnmaskingOrder,
    negative_text: str = "",
    num_candidates: int | None = None,
) -> VQTokens | SoftVQTokens:
    """Draw the tokens of one picture per caption, by networks that are in evaluation mode."""
    texts = [*captions, negative_text] if sampling.is_guided and negative_text else captions
    embeddings, mask = text_encoder.encode(texts)
    memory = network.read(embeddings[: len(captions)], mask[: len(captions)])
    null_memory = None
    if sampling.is_guided:
        length = None if negative_text else 1  # the null text is one word
        others = embeddings[-1:, :length].expand(len(captions), -1, -1), mask[-1:, :length].expand(len(captions), -1)
        is_null = torch.full((len(captions),), not negative_text, device=embeddings.device)
        null_memory = network.read(*others, is_null)
    uniform = torch.stack([_draw_uniform(seed, count_draws(network, sampling)) for seed in seeds])
    codebook = tokenizer.codebook
    decoded = decode_in_parallel(
        network,
        lambda ids: tokenizer.embed_tokens(VQTokens(ids, codebook)),
        memory,
        null_memory,
        uniform.to(embeddings.device),
        sampling,
        order,
        num_candidates,
    )
    if num_candidates is None:
        return VQTokens(decoded.ids, codebook)
    return SoftVQTokens(decoded.candidates, decoded.probabilities, codebook)


def _draw_uniform(seed: int, shape: tuple[int, ...]) -> Tensor:
    # On the CPU, whose numbers are the same beside every GPU.
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _whole(weight: Tensor) -> Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _without_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
