"""Card of a trained generator: how it is used, its training, and its limitations."""

from collections.abc import Mapping
from typing import Any

import yaml

from synth2_lightning.io.paths import shorten_paths

_TAGS = ["image-generation", "maskgit", "synth2-lightning"]
_GENERATOR = "synth2_lightning.generators.muse.MuseGenerator"


def write_generator_card(
    name: str, codebook: str, parts: Mapping[str, Any], data: Mapping[str, Any] | None, num_steps: int
) -> str:
    """Return the card as Markdown, with the Hub's front matter.

    Of absolute paths, only the last component remains.

    Args:
        name: Name of the generator.
        codebook: Fingerprint of its codebook.
        parts: Class specs of its tokenizer and text encoder, and its settings of sampling, by argument of
            :class:`~synth2_lightning.generators.muse.MuseGenerator`.
        data: Class spec of the training data; ``None`` if unknown.
        num_steps: Number of optimization steps.

    Example:
        >>> card = write_generator_card("generator", "vqgan-512:897db351", {"sampling": {"num_steps": 12}}, None, 9)
        >>> card.splitlines()[1:4]
        ['library_name: synth2-lightning', 'tags:', '- image-generation']
    """
    from huggingface_hub import ModelCardData

    front = ModelCardData(library_name="synth2-lightning", tags=_TAGS)
    spec = {"class_path": _GENERATOR, "init_args": {"generator": "hf://OWNER/NAME", **parts}}
    training = _TRAINING.format(num_steps=num_steps)
    sections = (
        f"---\n{front.to_yaml()}\n---\n\n# {name}",
        _SUMMARY.format(codebook=codebook),
        f"## Use\n\n{_USE}\n\n{_dump({'model': {'init_args': {'generator': spec}}})}",
        f"## Training\n\n{training}" + (f" The data:\n\n{_dump({'data': data})}" if data else ""),
        f"## Limitations\n\n{_LIMITATIONS}",
    )
    return "\n\n".join(sections) + "\n"


_SUMMARY = """A masked generator like MUSE ([arXiv 2301.00704](https://arxiv.org/abs/2301.00704)): it predicts image
tokens, not pixels, from a caption. They are codes of the codebook `{codebook}`. Trained with synth2-lightning, an open
implementation of Synth² ([arXiv 2403.07750](https://arxiv.org/abs/2403.07750))."""

_USE = """`synth2 predict --config synthesize.yaml --config use.yaml` generates tokens for captions, with this file as
`use.yaml`. Instead of the address, the path of this folder can be given. Other paths are those of the training."""

_TRAINING = "`synth2 fit`, {num_steps:,d} optimization steps."

_LIMITATIONS = """* It imitates the training images. What a caption leaves open is sampled.
* Its tokens are embeddings for a captioner with the same codebook; another encoder refuses them.
* Biases were not evaluated."""


def _dump(content: object) -> str:
    return f"```yaml\n{yaml.safe_dump(shorten_paths(content), sort_keys=False, allow_unicode=True, width=100)}```"
