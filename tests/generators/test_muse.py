import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from synth2_lightning.generators.muse import MuseGenerator, save_generator
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.nn.unmasking import ConfidenceOrder, HaltonOrder, UnmaskingOrder
from synth2_lightning.testing import TinyImageTokenizer, TinyTextEncoder, check_image_generator
from synth2_lightning.types import VQTokens

CAPTIONS, SEEDS = ["a bright field", "a dark field", "a field"], [4, 5, 6]
GUIDED = MaskGitSampling(num_steps=3, guidance=(0.0, 3.0))


class TrainableTextEncoder(TinyTextEncoder):
    """Text encoder that is trained jointly."""

    name = "learned"

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(8))

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        return embeddings * self.gain, mask


@pytest.fixture
def folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = MaskGit(6, 16, 1, (2, 2), text_dim=8, width=16, depth=2, num_heads=2)
    save_generator(tmp_path, network, TinyTextEncoder(), TinyImageTokenizer().codebook)
    return str(tmp_path)


def make_generator(folder: str, sampling: MaskGitSampling = GUIDED, **arguments: object) -> MuseGenerator:
    generator = MuseGenerator(folder, TinyImageTokenizer(), TinyTextEncoder(), sampling, **arguments)  # type: ignore[arg-type]
    generator.load()
    return generator


@pytest.mark.parametrize("order", [ConfidenceOrder(), HaltonOrder()])
def test_it_keeps_the_contract_of_image_generators(folder: str, order: UnmaskingOrder) -> None:
    generator = MuseGenerator(folder, TinyImageTokenizer(), TinyTextEncoder(), GUIDED, order)
    check_image_generator(generator, TinyImageTokenizer())


def test_an_image_depends_on_all_its_captions_but_not_on_their_order_or_the_batch(folder: str) -> None:
    generator = make_generator(folder)
    seeds = list(range(40, 64))
    both = generator.generate([("a bright field", "a dark line")] * 24, seeds).ids
    assert torch.equal(both, generator.generate([("a dark line", "a bright field")] * 24, seeds).ids)
    assert torch.equal(both[:1], generator.generate([("a bright field", "a dark line"), "a field"], seeds[:2]).ids[:1])
    one, other = (generator.generate([text] * 24, seeds).ids for text in ("a bright field", ("a dark line",)))
    assert not torch.equal(both, one)
    assert not torch.equal(both, other)
    assert torch.equal(one, generator.generate([("a bright field",)] * 24, seeds).ids)


def test_the_null_text_of_the_training_is_what_guidance_moves_away_from(folder: str) -> None:
    generator, reference = make_generator(folder), make_generator(folder)
    with torch.no_grad():
        generator.network.null_text_embedding.add_(5 * torch.randn(8, generator=torch.Generator().manual_seed(0)))
    tokens, others = (part.generate(CAPTIONS * 8, list(range(24))) for part in (generator, reference))
    assert not torch.equal(tokens.ids, others.ids)
    unguided = MaskGitSampling(num_steps=3)
    generator.sampling = reference.sampling = unguided
    tokens, others = (part.generate(CAPTIONS * 8, list(range(24))) for part in (generator, reference))
    assert torch.equal(tokens.ids, others.ids)


def test_a_negative_text_takes_the_null_texts_place(folder: str) -> None:
    seeds = list(range(24))
    negative = make_generator(folder, negative_text="a dark field with a dark border").generate(CAPTIONS * 8, seeds)
    assert not torch.equal(negative.ids, make_generator(folder).generate(CAPTIONS * 8, seeds).ids)
    away_from_itself = make_generator(folder, negative_text="a field").generate(["a field"] * 8, seeds[:8])
    unguided = make_generator(folder, MaskGitSampling(num_steps=3)).generate(["a field"] * 8, seeds[:8])
    assert torch.equal(away_from_itself.ids, unguided.ids)


def test_what_was_trained_comes_back(tmp_path: Path) -> None:
    network, text_encoder = (
        MaskGit(6, 16, 1, (2, 2), text_dim=8, width=16, depth=1, num_heads=2),
        TrainableTextEncoder(),
    )
    torch.nn.init.normal_(text_encoder.gain)
    save_generator(tmp_path, network, text_encoder, TinyImageTokenizer().codebook)
    generator = MuseGenerator(str(tmp_path), TinyImageTokenizer(), TrainableTextEncoder())
    assert generator.fingerprint == ""
    generator.load()
    assert torch.equal(generator.text_encoder.get_parameter("gain"), text_encoder.gain.half().float())
    assert all(
        torch.equal(weight, network.state_dict()[name].half().float())
        for name, weight in generator.network.state_dict().items()
    )
    assert not any(weight.requires_grad for weight in generator.parameters())
    assert generator.fingerprint.startswith("muse:")


def test_provenance_records_how_tokens_were_sampled(folder: str) -> None:
    provenance = make_generator(folder, order=ConfidenceOrder(noise=2.0)).provenance()
    assert provenance == json.loads(json.dumps(provenance))
    assert provenance["order"] == {"name": "ConfidenceOrder", "noise": 2.0}
    assert provenance["sampling"]["guidance"] == [0.0, 3.0]
    assert provenance["codebook"] == TinyImageTokenizer().codebook


def test_foreign_text_encoders_and_codebooks_are_refused(folder: str) -> None:
    with pytest.raises(ValueError, match=r"text encoder 'tiny'.*'learned'"):
        MuseGenerator(folder, TinyImageTokenizer(), TrainableTextEncoder())
    tokenizer = TinyImageTokenizer()
    tokenizer.codebook = "other-16:00000000"
    with pytest.raises(ValueError, match=r"codebook 'tiny-16:00000000'.*synth2 fit"):
        MuseGenerator(folder, tokenizer, TinyTextEncoder()).load()


def test_generating_without_weights_and_captions_is_refused(folder: str) -> None:
    with pytest.raises(RuntimeError, match=r"load\(\)"):
        MuseGenerator(folder, TinyImageTokenizer(), TinyTextEncoder()).generate(["a field"], [0])
    with pytest.raises(ValueError, match=r"1 of 2 captions.*empty"):
        make_generator(folder).generate(["a field", " "], [0, 1])
    with pytest.raises(FileNotFoundError, match=r"generator.*'nowhere'"):
        MuseGenerator("nowhere", TinyImageTokenizer(), TinyTextEncoder())


def test_tokens_are_images_of_the_captioner(folder: str) -> None:
    tokens = make_generator(folder).generate(CAPTIONS, SEEDS)
    assert isinstance(tokens, VQTokens)
    assert TinyImageTokenizer()(tokens).shape == (3, 4, 6)


@pytest.mark.slow
def test_a_compiled_generator_samples_the_same_tokens(folder: str, graph_counts: dict[str, int]) -> None:
    compiled = make_generator(folder, compile_network=True)
    tokens = compiled.generate(CAPTIONS, SEEDS)
    assert graph_counts["unique_graphs"] == 2  # conditional and unconditional
    assert torch.equal(tokens.ids, make_generator(folder).generate(CAPTIONS, SEEDS).ids)
