"""Implementation of ``synth2 score``: caption metrics, a table, and a protocol card."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from synth2_lightning.io.atomic import write_json
from synth2_lightning.io.console import MessageConsole
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.paths import check_output_file
from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.cider import cider
from synth2_lightning.metrics.document_frequencies import (
    DocumentFrequencies,
    count_document_frequencies,
    load_document_frequencies,
)
from synth2_lightning.metrics.java import check_java, meteor, spice
from synth2_lightning.metrics.rouge import rouge
from synth2_lightning.reports.predictions import (
    Duplicates,
    Missing,
    Unknown,
    join_predictions,
    read_predictions,
    read_references,
)

if TYPE_CHECKING:
    from synth2_lightning.reports.clip_scores import ImageFolder

_VERSIONS = ("synth2-lightning", "pycocoevalcap")


def score_captions(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
) -> dict[str, float]:
    """Return all caption metrics that do not require Java; see :func:`cider` for the arguments.

    Returns:
        Scores by name, in [0, 1] (CIDEr-D in [0, 10]); papers report them times 100.

    Raises:
        ValueError: If there is no image, or an image has no references.

    Example:
        >>> list(score_captions({"1": "a dog", "2": "a cat"}, {"1": ["a dog"], "2": ["a red cat"]}))
        ['CIDEr-D', 'BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4', 'ROUGE-L']
    """
    return {
        "CIDEr-D": cider(hypotheses, references, frequencies).score,
        **{f"BLEU-{n}": score for n, score in enumerate(bleu(hypotheses, references).corpus, start=1)},
        "ROUGE-L": rouge(hypotheses, references).score,
    }


def score_predictions(
    predictions: str,
    references: str,
    out: Path | None = None,
    missing: Missing = "error",
    unknown: Unknown = "error",
    duplicates: Duplicates = "error",
    document_frequencies: str | None = None,
    java_metrics: Sequence[str] = (),
    compare_java: bool = False,
    images: "ImageFolder | None" = None,
) -> dict[str, Any]:
    """Score predictions, print the scores, and return a protocol card.

    Args:
        predictions: Location of COCO results (``.json``), or of a table (``.jsonl``, ``.csv``, ``.tsv``) with
            ``caption`` and one of ``image_id``, ``key`` and ``image``, a path that ends with a file name of the
            references.
        references: Location of COCO captions.
        out: JSON file for the protocol card.
        missing: See :func:`join_predictions`.
        unknown: See :func:`join_predictions`.
        duplicates: See :func:`join_predictions`.
        document_frequencies: Location of stored document frequencies (``.parquet``), or of COCO captions to count.
        java_metrics: Additional metrics: ``METEOR``, ``SPICE``.
        compare_java: Also score with pycocoevalcap and its Java tokenizer, and print the differences.
        images: Image folder for CLIPScore and RefCLIPScore; requires ``file_name`` entries in the references.

    Raises:
        FileNotFoundError: If a file, an image, Java, or a Java library is missing.
        OSError: If an image cannot be read, CLIP's weights cannot be loaded, or ``out`` is a folder or an input.
        ValueError: If a file is malformed, ids do not match, or ``compare_java`` is combined with
            ``document_frequencies``.
    """
    console = MessageConsole()
    if compare_java and document_frequencies is not None:
        raise ValueError(
            "--compare_java and --document_frequencies are exclusive, because pycocoevalcap counts its own document "
            "frequencies; expected one of them."
        )
    if out is not None:
        inputs = [predictions, references, *([document_frequencies] if document_frequencies else ())]
        check_output_file(out, *map(Path, inputs))
    pairs = join_predictions(
        read_predictions(predictions, references), read_references(references), missing, unknown, duplicates
    )
    files = images.find(references, list(pairs.hypotheses)) if images is not None else {}
    frequencies = _read_frequencies(document_frequencies)
    scores = score_captions(pairs.hypotheses, pairs.references, frequencies)
    for name in java_metrics:
        compute = {"METEOR": meteor, "SPICE": spice}[name]
        scores[name] = compute(pairs.hypotheses, pairs.references).score
    if images is not None:
        scores |= images.score(files, pairs.hypotheses, pairs.references)
    pycocoevalcap_scores = score_with_pycocoevalcap(pairs.hypotheses, pairs.references) if compare_java else {}
    card = {
        "scores": scores,
        "scale": "1.0 corresponds to 100 in papers",
        "pycocoevalcap": pycocoevalcap_scores or None,
        "predictions": _describe(predictions),
        "references": _describe(references),
        "num_images": len(pairs.hypotheses),
        "num_references": sum(map(len, pairs.references.values())),
        "num_empty_captions": sum(not text.strip() for text in pairs.hypotheses.values()),
        "missing": {"count": pairs.num_missing, "treated": missing},
        "unknown": {"count": pairs.num_unknown, "treated": unknown},
        "duplicates": {"count": pairs.num_duplicates, "treated": duplicates},
        "tokenizer": "Penn Treebank, lower case, punctuation removed",
        "document_frequencies": _describe(document_frequencies) if document_frequencies else "of these references",
        "clip": images.describe() if images is not None else None,
        "versions": {name: version(name) for name in _VERSIONS},
    }
    _print_scores(card, console)
    if out is not None:
        write_json(out, card)
        console.print(f"The protocol card is at {out}", soft_wrap=True)
    return card


def score_with_pycocoevalcap(
    hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return the scores of COCO's evaluation: Stanford's tokenizer in Java, then pycocoevalcap.

    Raises:
        FileNotFoundError: If Java or the tokenizer is missing.
    """
    check_java("The comparison", ["tokenizer/stanford-corenlp-3.4.1.jar"])
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    wanted = tokenizer.tokenize({key: [{"caption": text} for text in references[key]] for key in hypotheses})
    words = tokenizer.tokenize({key: [{"caption": text}] for key, text in hypotheses.items()})
    bleus, _ = Bleu(4).compute_score(wanted, words, verbose=0)
    return {
        "CIDEr-D": float(Cider().compute_score(wanted, words)[0]),
        **{f"BLEU-{n}": float(score) for n, score in enumerate(bleus, start=1)},
        "ROUGE-L": float(Rouge().compute_score(wanted, words)[0]),
    }


def _read_frequencies(location: str | None) -> DocumentFrequencies | None:
    if location is None:
        return None
    path = resolve(location, "document frequencies")
    if path.suffix.lower() == ".json":
        return count_document_frequencies(read_references(location))
    return load_document_frequencies(path)


def _describe(location: str) -> dict[str, str]:
    path = resolve(location, "file")
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _print_scores(card: Mapping[str, Any], console: Console) -> None:
    java_scores = card["pycocoevalcap"] or {}
    table = Table("metric", box=None)
    for heading in ("score", "score x100", *(("pycocoevalcap", "difference") if java_scores else ())):
        table.add_column(heading, justify="right")
    for name, score in card["scores"].items():
        cells = [f"{score:.6f}", f"{100 * score:.1f}"]
        if name in java_scores:
            cells += [f"{java_scores[name]:.6f}", f"{score - java_scores[name]:+.1e}"]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"{card['num_images']} images with {card['num_references']} references")
    for mismatch in ("missing", "unknown", "duplicates"):
        if card[mismatch]["count"]:
            console.print(f"{mismatch}: {card[mismatch]['count']}, treated as {card[mismatch]['treated']!r}")
    if clip := card["clip"]:
        settings = ", ".join(f"{name} {value!r}" for name, value in clip.items())
        console.print(f"CLIPScore settings: {settings}", soft_wrap=True)
