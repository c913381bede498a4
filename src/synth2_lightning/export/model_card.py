"""Model card of an exported captioner: scores, training data, components and limitations."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synth2_lightning.export.runs import DataRecord
from synth2_lightning.io.hub import HF_SCHEME, parse_address, parse_repository
from synth2_lightning.io.paths import shorten_paths
from synth2_lightning.shards.manifest import Manifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def write_card(
    name: str,
    config: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    data: DataRecord | None,
    license: str | None,
    from_hub: Collection[str] = (),
    is_answering: bool = False,
) -> str:
    """Return the card as Markdown, with the Hub's front matter.

    Args:
        name: Name of the captioner.
        config: Content of its ``config.json``.
        scores: Protocol cards.
        data: ``None`` if unknown.
        license: License of the weights as a Hub identifier.
        from_hub: Names on the Hub that the components were read from.
        is_answering: Whether it answers questions.
    """
    from huggingface_hub import ModelCardData

    task = "visual question answering" if is_answering else "image captioning"
    synthetic = ["synthetic-data"] if data is not None and data.synthetic_fraction is not None else []
    front = ModelCardData(
        model_name=name if scores else None,
        library_name="synth2-lightning",
        pipeline_tag="image-text-to-text",  # transformers replaced image-to-text by it
        tags=[task.replace(" ", "-"), "synth2-lightning", "vision-language", *synthetic],
        license=license,
        base_model=sorted(set(_list_models(config["model"])) & set(from_hub)) or None,
        datasets=sorted(set(_list_datasets(data))) or None,
        eval_results=[_make_result(card, task) for card in scores] or None,
    )
    sections = (
        f"---\n{front.to_yaml()}\n---\n\n# {name}",
        _summary(config, license, task),
        "## Use\n\n" + (_ASK if is_answering else _CAPTION).format(name=name),
        "## Scores\n\n" + "\n".join(_score_lines(scores)),
        "## Training data\n\n" + "\n".join(_data_lines(data)),
        "## Components\n\n" + "\n".join(_component_lines(config)),
        "## Limitations\n\n" + _LIMITATIONS,
    )
    return "\n\n".join(sections) + "\n"


def _make_result(card: Mapping[str, Any], task: str) -> "EvalResult":
    from huggingface_hub import EvalResult

    sources = ", ".join(card.get("sources", [])) or "not recorded"
    protocol = ("num_images", "num_references", "prompt", "generation", "human_score")
    return EvalResult(
        task_type="image-text-to-text",
        task_name=task,
        dataset_type=re.sub(r"\W+", "-", sources.lower()),
        dataset_name=sources,
        dataset_split=card["split"],
        metric_type=re.sub(r"\W+", "_", card["metric"].lower()),
        metric_name=card["metric"],
        metric_value=card["score"],
        metric_args={name: card[name] for name in protocol if card.get(name) is not None},
    )


def _list_models(description: object) -> Iterator[str]:
    if isinstance(description, Mapping):
        for name, value in description.items():
            if name == "model" and isinstance(value, str):
                yield value
            yield from _list_models(value)


def _list_datasets(data: DataRecord | None) -> Iterator[str]:
    for _, class_name, arguments in () if data is None else data.components:
        if class_name == "HubSource" and (found := parse_repository(str(arguments.get("path")))):
            yield found.name
        for value in arguments.values():
            if isinstance(value, str) and value.startswith(f"{HF_SCHEME}datasets/"):
                yield parse_address(value)[0].name


_LOAD = """With synth2-lightning installed, load this folder, or its name on the Hub (`OWNER/NAME`, or
`OWNER/NAME@COMMIT` for reproducible texts). Loading runs no code from this folder.

```python
import synth2_lightning
"""
_CAPTION = f"""{_LOAD}captioner = synth2_lightning.load("{{name}}")
print(captioner.caption(["image.jpg"]))
```

`synth2 caption {{name}} image.jpg` does the same."""
_ASK = f"""{_LOAD}from PIL import Image
from synth2_lightning.types import Pixels
from torchvision.transforms.functional import pil_to_tensor

module = synth2_lightning.load("{{name}}").module
image = pil_to_tensor(Image.open("image.jpg").convert("RGB"))
print(module.caption(Pixels(image[None]), ["what is it?"]))
```"""

_LIMITATIONS = """* Captions imitate the training captions, including their omissions and errors.
* Captions can be fluent and wrong. Biases were not evaluated.
* The scores hold for the listed split, references, prompt and decoding, and do not generalize to other images.
* Components that are not included keep their own licenses. Models that are named on the Hub may change there."""


def _summary(config: Mapping[str, Any], license: str | None, task: str) -> str:
    class_name = str(config["model"]["class_path"]).rpartition(".")[2]
    versions = ", ".join(f"{package} {number}" for package, number in config["versions"].items())
    steps = "" if config["step"] is None else f" for {config['step']} steps"
    terms = f"License of the weights: {license}." if license else "The license of the weights is not specified."
    return (
        f"A model for {task} ({class_name}), trained{steps} with "
        "synth2-lightning, an open implementation of Synth² "
        f"([arXiv 2403.07750](https://arxiv.org/abs/2403.07750)). {terms} Exported with {versions}."
    )


def _score_lines(scores: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not scores:
        yield "None was recorded for this checkpoint."
        return
    yield "| metric | score | human, leave-one-out | data, split | images | references | prompt | decoding |"
    yield "|---|---|---|---|---|---|---|---|"
    for card in scores:
        human = card.get("human_score")
        cells = (
            card["metric"],
            f"{card['score']:.4f}",
            "" if human is None else f"{human:.4f}",
            ", ".join([*card.get("sources", []), card["split"]]),
            card.get("num_images", ""),
            card.get("num_references", ""),
            f"`{card['prompt']}`" if card.get("prompt") else "none",
            _format_decoding(card.get("generation", {})),
        )
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
    yield "\nA CIDEr of 1.0 is 100 in papers. The complete protocol cards:\n"
    yield _fold("protocol cards", list(scores))


def _format_decoding(generation: Mapping[str, Any]) -> str:
    if not generation:
        return ""
    beams = generation.get("num_beams", 1)
    method = f"{beams} beams" if beams > 1 else "sampled" if generation.get("do_sample") else "greedy"
    return f"{method}, at most {generation.get('max_new_tokens', '?')} tokens"


def _data_lines(data: DataRecord | None) -> Iterator[str]:
    if data is None:
        yield "Not known."
        return
    fraction = data.synthetic_fraction
    yield f"Fraction of synthetic pairs in a batch: {fraction}." if fraction else "No synthetic pairs were mixed in."
    yield "\n| key in the run file | class | arguments |\n|---|---|---|"
    for where, name, arguments in data.components:
        values = ", ".join(f"{key}={shorten_paths(value)}" for key, value in arguments.items())
        yield f"| {where or 'data'} | {name} | {values.replace('|', '/')} |"
    for location, manifest in data.manifests.items():
        if isinstance(manifest, Manifest):
            content = f"{manifest.num_records:,d} records, codebook {manifest.tokens.codebook}"
            yield f"\nShards {shorten_paths(location)}: {content}.\n"
            yield _fold("provenance", manifest.provenance)
        else:
            yield f"\nShards {shorten_paths(location)}: the manifest {manifest}."


def _component_lines(config: Mapping[str, Any]) -> Iterator[str]:
    yield f"* Trained, in `model.safetensors`: {config['trained_weights']:,d} parameters."
    for name, fingerprint in config["frozen_parts"].items():
        component = config["model"]["init_args"].get(name, {})
        yield f"* Frozen, loaded separately: `{name}`, {component.get('class_path', '')} (weights {fingerprint})."
    for name, codebook in config["codebooks"].items():
        yield f"* Codebook of `{name}`: {codebook}."
    yield "\nTheir classes and arguments are in `config.json`."


def _fold(title: str, content: object) -> str:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return f"<details><summary>{title}</summary>\n\n```json\n{text}\n```\n\n</details>"
