"""What ``synth2 score`` does: scores of captions, a table, and the card that says how they were made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from synth2_lightning.console import MessageConsole
from synth2_lightning.files import write_atomically
from synth2_lightning.locations import resolve
from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.cider import cider
from synth2_lightning.metrics.document_frequencies import (
    DocumentFrequencies,
    count_document_frequencies,
    load_document_frequencies,
)
from synth2_lightning.metrics.java import check_java, meteor, spice
from synth2_lightning.metrics.rouge import rouge
from synth2_lightning.reports.clip_scores import PictureFolder
from synth2_lightning.reports.predictions import (
    Duplicates,
    Missing,
    Unknown,
    join_predictions,
    read_predictions,
    read_references,
)

_VERSIONS = ("synth2-lightning", "pycocoevalcap")


def score_captions(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
) -> dict[str, float]:
    """Score captions with everything that needs no Java.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key.
        frequencies: Document frequencies for CIDEr; those of these references where left out.

    Returns:
        Scores by name, from 0 to 1 (CIDEr-D to 10); tables print them times 100.

    Raises:
        ValueError: If there is no picture, or one of them has no references.

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
    pictures: PictureFolder | None = None,
) -> dict[str, Any]:
    """Score a captioner's output, show the scores, and say how they were made.

    Args:
        predictions: Location of COCO results (``.json``), or of lines with ``key`` or ``image_id`` and ``caption``
            (``.jsonl``).
        references: Location of COCO captions.
        out: JSON file for the protocol card.
        missing: How to treat pictures without a prediction.
        unknown: How to treat predictions without references.
        duplicates: How to treat several predictions of one picture.
        document_frequencies: Location of stored ones (``.parquet``), or of COCO captions to count them in.
        java_metrics: Of ``METEOR`` and ``SPICE``, those to compute, too.
        compare_java: Score with pycocoevalcap and its Java tokeniser, too, and show the differences.
        pictures: Score by CLIPScore and RefCLIPScore, too; the references must name the pictures' files.

    Returns:
        The protocol card.

    Raises:
        FileNotFoundError: If a file, a picture, Java, or what belongs to it is missing.
        OSError: If a picture cannot be read, or the weights of CLIP cannot be had.
        ValueError: If a file is malformed, ids do not fit, or the comparison is asked for with stored frequencies.
    """
    console = MessageConsole()
    if compare_java and document_frequencies is not None:
        raise ValueError(
            "--compare-java was asked for with --document-frequencies, which pycocoevalcap does not read; expected one "
            "of them. Leave one out."
        )
    pairs = join_predictions(read_predictions(predictions), read_references(references), missing, unknown, duplicates)
    files = pictures.find(references, list(pairs.hypotheses)) if pictures is not None else {}
    frequencies = _read_frequencies(document_frequencies)
    scores = score_captions(pairs.hypotheses, pairs.references, frequencies)
    for name in java_metrics:
        compute = {"METEOR": meteor, "SPICE": spice}[name]
        scores[name] = compute(pairs.hypotheses, pairs.references).score
    if pictures is not None:
        scores |= pictures.score(files, pairs.hypotheses, pairs.references)
    rival = score_with_pycocoevalcap(pairs.hypotheses, pairs.references) if compare_java else {}
    card = {
        "scores": scores,
        "scale": "1.0 is what tables print as 100",
        "pycocoevalcap": rival or None,
        "predictions": _describe(predictions),
        "references": _describe(references),
        "num_pictures": len(pairs.hypotheses),
        "num_references": sum(map(len, pairs.references.values())),
        "num_empty_captions": sum(not text.strip() for text in pairs.hypotheses.values()),
        "missing": {"count": pairs.num_missing, "treated": missing},
        "unknown": {"count": pairs.num_unknown, "treated": unknown},
        "duplicates": {"count": pairs.num_duplicates, "treated": duplicates},
        "tokeniser": "Penn Treebank, lower case, punctuation removed",
        "document_frequencies": _describe(document_frequencies) if document_frequencies else "of these references",
        "clip": pictures.describe() if pictures is not None else None,
        "versions": {name: version(name) for name in _VERSIONS},
    }
    _show(card, console)
    if out is not None:
        _write(out, card)
        console.print(f"The protocol card is at {out}", soft_wrap=True)
    return card


def score_with_pycocoevalcap(
    hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Score as COCO's evaluation does, from strings: Stanford's tokeniser in Java, then pycocoevalcap.

    Raises:
        FileNotFoundError: If Java or the tokeniser is missing.
    """
    check_java("The comparison", ["tokenizer/stanford-corenlp-3.4.1.jar"])
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    people = tokenizer.tokenize({key: [{"caption": text} for text in references[key]] for key in hypotheses})
    ours = tokenizer.tokenize({key: [{"caption": text}] for key, text in hypotheses.items()})
    bleus, _ = Bleu(4).compute_score(people, ours, verbose=0)
    return {
        "CIDEr-D": float(Cider().compute_score(people, ours)[0]),
        **{f"BLEU-{n}": float(score) for n, score in enumerate(bleus, start=1)},
        "ROUGE-L": float(Rouge().compute_score(people, ours)[0]),
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


def _show(card: Mapping[str, Any], console: Console) -> None:
    rival = card["pycocoevalcap"] or {}
    table = Table("metric", box=None)
    for heading in ("score", "as tables print it", *(("pycocoevalcap", "difference") if rival else ())):
        table.add_column(heading, justify="right")
    for name, score in card["scores"].items():
        cells = [f"{score:.6f}", f"{100 * score:.1f}"]
        if name in rival:
            cells += [f"{rival[name]:.6f}", f"{score - rival[name]:+.1e}"]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"{card['num_pictures']} pictures with {card['num_references']} references")
    for kind in ("missing", "unknown", "duplicates"):
        if card[kind]["count"]:
            console.print(f"{kind}: {card[kind]['count']}, treated as {card[kind]['treated']!r}")
    if clip := card["clip"]:
        told = ", ".join(f"{name} {value!r}" for name, value in clip.items())
        console.print(f"CLIPScore of {told}", soft_wrap=True)


def _write(path: Path, card: Mapping[str, Any]) -> None:
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda draft: draft.write_text(text, "utf-8"))
