"""The shipped folders are consistent with each other."""

import re

import yaml

from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.encoders.text import NewTextEncoder
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.generators.muse import MuseGenerator
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.scenes.grammar import describe_scene
from synth2_lightning.scenes.world import is_held_out, scene_at
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import VQTokens


def read_shards() -> ShardReader:
    reader = ShardReader("package://synth2_lightning/scenes/shards")
    reader.load()
    return reader


def test_every_generated_pair_is_of_a_scene_that_training_lacks() -> None:
    reader = read_shards()
    images = reader.read(range(0, len(reader), 50))
    for key, (caption,) in zip(images.keys, images.captions, strict=True):
        match = re.fullmatch(r"scenes-held_out-(\d+)-(\d)", key)
        assert match
        scene = scene_at("held_out", int(match[1]), seed=1)
        assert is_held_out(scene.content)
        assert caption == describe_scene(scene)[int(match[2])]


def test_the_pairs_are_of_the_generator_and_in_the_codes_of_the_tokenizer() -> None:
    reader = read_shards()
    tokenizer = VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
    run_file = run_file_folder() / "model" / "scenes_text_encoder.yaml"
    text_encoder = NewTextEncoder(**yaml.safe_load(run_file.read_text("utf-8"))["init_args"])
    folder = "package://synth2_lightning/scenes/generator"
    generator = MuseGenerator(folder, tokenizer, text_encoder, MaskGitSampling(num_steps=12, guidance=(1.0, 1.0)))
    generator.load()
    made_by = reader.manifest.provenance["settings"]["data"]["shards"]["model"]
    assert (made_by["generator"], made_by["codebook"]) == (generator.fingerprint, tokenizer.codebook)

    captions = ["two large green squares on a plain white background"] * 8
    drawn = generator.generate(captions, seeds=range(8))
    assert isinstance(drawn, VQTokens)
    pixels = tokenizer.detokenize(drawn).values.float()
    middle = pixels.amin(dim=1)
    assert (middle.flatten(1).median(dim=1).values > 200).float().mean() > 0.8  # mostly white paper
    red, green, _ = pixels.flatten(2).unbind(1)
    assert ((green - red > 60).float().mean(1) > 0.05).float().mean() > 0.8  # with something green on it
