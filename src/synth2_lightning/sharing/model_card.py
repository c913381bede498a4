"""The card of a shared captioner: what it is, how it was scored, what it learnt from, and what it cannot do."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synth2_lightning.files import expand_home
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.sharing.runs import DataRecord

_TAGS = ["image-captioning", "synth2-lightning", "vision-language"]


def write_card(
    name: str,
    config: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    data: DataRecord | None,
    license: str | None,
) -> str:
    """Write the card as Markdown, after the front matter that the Hub reads.

    Args:
        name: What the captioner is called.
        config: Its description, as ``config.json`` holds it.
        scores: Protocol cards.
        data: What it learnt from; ``None`` where nobody knows.
        license: Of the weights, as the Hub writes it.
    """
    from huggingface_hub import ModelCardData

    synthetic = ["synthetic-data"] if data is not None and data.synthetic_share is not None else []
    front = ModelCardData(
        library_name="synth2-lightning", pipeline_tag="image-to-text", tags=[*_TAGS, *synthetic], license=license
    )
    sections = (
        f"---\n{front.to_yaml()}\n---\n\n# {name}",
        _say_what_it_is(config, license),
        "## Use\n\n" + _USE.format(name=name),
        "## Scores\n\n" + "\n".join(_tell_scores(scores)),
        "## Data\n\n" + "\n".join(_tell_data(data)),
        "## Parts\n\n" + "\n".join(_tell_parts(config)),
        "## Limits\n\n" + _LIMITS,
    )
    return "\n\n".join(sections) + "\n"


_USE = """`pip install synth2-lightning`, then, with the name of this folder or of its repository:

```python
import synth2_lightning
captioner = synth2_lightning.load("{name}")
print(captioner.caption(["picture.jpg"]))
```

`synth2 caption picture.jpg --checkpoint {name}` does the same. Loading runs no code of this folder."""

_LIMITS = """* It writes captions like those that it learnt from: what they lack or get wrong, it lacks and gets wrong.
* It says untrue things as fluently as true ones, and nobody has looked for biases in it.
* The scores hold for the split, references, prompt and decoding beside them. They say nothing of other pictures.
* Parts that are named and not included keep their own licences; what comes from the Hub by name may change there."""


def _say_what_it_is(config: Mapping[str, Any], license: str | None) -> str:
    class_name = str(config["model"]["class_path"]).rpartition(".")[2]
    versions = ", ".join(f"{package} {number}" for package, number in config["versions"].items())
    terms = f"Licence of the weights: {license}." if license else "No licence was given for the weights."
    return (
        f"An image captioner ({class_name}), trained for {config['step']} steps with "
        "[synth2-lightning](https://pypi.org/project/synth2-lightning/), an open implementation of Synth² "
        f"([arXiv 2403.07750](https://arxiv.org/abs/2403.07750)). {terms} Written with {versions}."
    )


def _tell_scores(scores: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not scores:
        yield "None was written for this checkpoint."
        return
    yield "| metric | score | one person against the others | data, split | pictures | references | prompt | decoding |"
    yield "|---|---|---|---|---|---|---|---|"
    for card in scores:
        human = card.get("human_score")
        cells = (
            card["metric"],
            f"{card['score']:.4f}",
            "" if human is None else f"{human:.4f}",
            ", ".join([*card.get("sources", []), card["split"]]),
            card.get("num_pictures", ""),
            card.get("num_references", ""),
            f"`{card['prompt']}`" if card.get("prompt") else "none",
            _say_decoding(card.get("generation", {})),
        )
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
    yield "\nA CIDEr of 1.0 is what papers print as 100. The protocol cards, whole:\n"
    yield _fold("protocol cards", list(scores))


def _say_decoding(generation: Mapping[str, Any]) -> str:
    if not generation:
        return ""
    beams = generation.get("num_beams", 1)
    way = f"{beams} beams" if beams > 1 else "sampled" if generation.get("do_sample") else "greedy"
    return f"{way}, at most {generation.get('max_new_tokens', '?')} tokens"


def _tell_data(data: DataRecord | None) -> Iterator[str]:
    if data is None:
        yield "Not known: no run file lay beside the checkpoint."
        return
    share = data.synthetic_share
    yield f"Synthetic pairs in a batch: {share}." if share else "No synthetic pairs were mixed in."
    yield "\n| place in the run file | part | arguments |\n|---|---|---|"
    for where, name, arguments in data.parts:
        told = ", ".join(f"{key}={_shorten(value)}" for key, value in arguments.items())
        yield f"| {where or 'data'} | {name} | {told.replace('|', '/')} |"
    for location, manifest in data.manifests.items():
        if isinstance(manifest, Manifest):
            content = f"{manifest.num_records:,d} records, codebook {manifest.tokens.codebook}"
            yield f"\nShards {_shorten(location)}: {content}.\n"
            yield _fold("what made them", manifest.provenance)
        else:
            yield f"\nShards {_shorten(location)}: the manifest {manifest}."


def _tell_parts(config: Mapping[str, Any]) -> Iterator[str]:
    yield f"* Trained, in `model.safetensors`: {config['trained_weights']:,d} scalars."
    for name, fingerprint in config["frozen_parts"].items():
        part = config["model"]["init_args"].get(name, {})
        yield f"* Frozen, brought on loading: `{name}`, {part.get('class_path', '')} (weights {fingerprint})."
    for name, codebook in config["codebooks"].items():
        yield f"* Codebook of `{name}`: {codebook}."
    yield "\nHow they are made is in `config.json`."


def _fold(title: str, content: Any) -> str:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return f"<details><summary>{title}</summary>\n\n```json\n{text}\n```\n\n</details>"


def _shorten(value: Any) -> str:
    """Say an argument; of places on somebody's machine the name alone."""
    if isinstance(value, str) and expand_home(value).is_absolute():
        return f"…/{Path(value).name}"
    return str(value)
