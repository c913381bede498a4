"""How well mirrored token grids approximate mirrored photos: fractions of explained variance.

The reference are the encoder's features of mirrored photos. Compared with them: the mirrored grid of the photos'
features; the codes of the mirrored photos' own tokens (upper bound for tokens); the codes of the photos' tokens,
mirrored, as ``datamodules.mirroring.Mirroring`` trains on; and the codes of the photos' tokens as they are. ``ratio``
is the third over the second.

    synth2 weights efficientnet-lite0
    synth2 fit --config experiments/flickr8k/codebook.yaml
    python benchmarks/mirrored_tokens.py
    python benchmarks/mirrored_tokens.py --tokenizer MY_TOKENIZER.yaml --photos MY_PHOTOS.yaml
"""

import sys

import torch
from jaxtyping import Float
from jsonargparse import ArgumentParser
from torch import Tensor

from report import report
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.datamodules.mirroring import mirror_pixels, mirror_tokens
from synth2_lightning.datamodules.photos import ImageReader
from synth2_lightning.encoders.quantized import QuantizedEncoder
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.types import Pixels, VQTokens

FLICKR8K = run_file_folder() / "experiments" / "flickr8k"


def explained_variance(
    reference: Float[Tensor, "photos tokens dim"], approximation: Float[Tensor, "photos tokens dim"]
) -> float:
    """Return the fraction of the reference's variance around its mean token that an approximation explains."""
    residual = (reference - approximation).double().square().sum()
    return float(1 - residual / (reference - reference.mean((0, 1))).double().square().sum())


@torch.no_grad()
def measure(tokenizer: QuantizedEncoder, pixels: Pixels) -> dict[str, float]:
    """Return the fractions of explained variance."""
    rows = torch.ones(len(pixels), dtype=torch.bool)
    mirrored_pixels, tokens = mirror_pixels(pixels, rows), tokenizer.tokenize(pixels)
    columns = mirror_tokens(VQTokens(torch.arange(tokenizer.num_tokens)[None, :, None], ""), rows[:1]).ids.flatten()
    reference = tokenizer.encoder.encode_pixels(mirrored_pixels)
    approximations = {
        "mirrored_features": tokenizer.encoder.encode_pixels(pixels)[:, columns],
        "tokens_of_mirrored_photos": tokenizer.embed_tokens(tokenizer.tokenize(mirrored_pixels)),
        "mirrored_tokens": tokenizer.embed_tokens(mirror_tokens(tokens, rows)),
        "tokens": tokenizer.embed_tokens(tokens),
    }
    return {name: explained_variance(reference, each) for name, each in approximations.items()}


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=QuantizedEncoder, sub_configs=True, help="YAML file of a QuantizedEncoder")
    parser.add_argument("--photos", type=ImageTextSource, sub_configs=True, help="YAML file of a source of photos")
    parser.add_argument("--num_photos", type=int, default=64, help="number of photos, from the first")
    defaults = [f"--tokenizer={FLICKR8K / 'model' / 'tokenizer.yaml'}", f"--photos={FLICKR8K / 'data' / 'val.yaml'}"]
    args = parser.instantiate(parser.parse_args([*defaults, *sys.argv[1:]]))
    args.photos.load()
    args.tokenizer.load()
    pixels, _, _ = ImageReader(args.photos, args.tokenizer.image_size, max_bad_images=0).read(range(args.num_photos))
    figures = measure(args.tokenizer, pixels)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):26} {value:.3f}")
    report(
        "mirrored_tokens",
        figures["mirrored_tokens"] / figures["tokens_of_mirrored_photos"],
        codebook=args.tokenizer.codebook,
        num_photos=args.num_photos,
        **figures,
    )


if __name__ == "__main__":
    main()
