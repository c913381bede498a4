"""METEOR and SPICE, through pycocoevalcap and Java, where both and their files are there.

Java is started in English and UTF-8 whatever the machine's language is: METEOR writes numbers by it, and a decimal
comma is no number.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError

import torch
from torch import Tensor

from synth2_lightning.metrics.corpus import CorpusMetric, check_corpus
from synth2_lightning.metrics.ptb import tokenize

_ENGLISH = "-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8"
_METEOR_FILES = ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz")
_SPICE_FILES = (
    "spice/spice-1.0.jar",
    "spice/lib/stanford-corenlp-3.6.0.jar",
    "spice/lib/stanford-corenlp-3.6.0-models.jar",
)


@dataclass(frozen=True, slots=True)
class JavaResult:
    """A score of a corpus, and of every picture in it, from 0 to 1.

    Example:
        >>> JavaResult(score=0.25, scores={"7": 0.2, "8": 0.3}).score
        0.25
    """

    score: float
    scores: dict[str, float]


def meteor(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> JavaResult:
    """Score with METEOR 1.5 (M. Denkowski and A. Lavie 2014): words, stems, synonyms and paraphrases in common.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key; keys that have no hypothesis play no part.

    Raises:
        FileNotFoundError: If Java or a file of METEOR is missing.
        OSError: If Java stopped with an error.
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> meteor({}, {})
        Traceback (most recent call last):
        ValueError: METEOR was asked for over no picture at all; expected captions with references.
    """
    with _java("METEOR", _METEOR_FILES, hypotheses, references) as tokens:
        from pycocoevalcap.meteor.meteor import Meteor as CocoMeteor

        rival = CocoMeteor()
        try:
            score, scores = rival.compute_score(*tokens)
        except (ValueError, OSError) as error:
            rival.lock = _NoLock()  # it is held still, and its destructor waits for it
            raise OSError(
                f"METEOR's Java stopped before it gave scores ({error}). Expected Java 8 or later with 2 GB to spare; "
                "try: java -version."
            ) from error
        finally:
            rival.meteor_p.stdout.close()  # its destructor forgets these
            rival.meteor_p.stderr.close()
    return JavaResult(float(score), dict(zip(hypotheses, map(float, scores), strict=True)))


def spice(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> JavaResult:
    """Score with SPICE (P. Anderson et al. 2016): objects, attributes and relations in common.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key; keys that have no hypothesis play no part.

    Raises:
        FileNotFoundError: If Java or a file of SPICE is missing; nothing is downloaded.
        OSError: If Java stopped with an error.
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> spice({}, {})
        Traceback (most recent call last):
        ValueError: SPICE was asked for over no picture at all; expected captions with references.
    """
    with _java("SPICE", _SPICE_FILES, hypotheses, references) as tokens:
        from pycocoevalcap.spice.spice import Spice as CocoSpice

        try:
            score, scores = CocoSpice().compute_score(*tokens)
        except CalledProcessError as error:
            raise OSError(
                f"SPICE's Java stopped with exit code {error.returncode}. Expected Java 8, which it was written for, "
                "with 8 GB to spare; what it printed above says more."
            ) from error
    # It answers in the order of the sorted keys.
    by_key = dict(zip(sorted(hypotheses), (float(each["All"]["f"]) for each in scores), strict=True))
    return JavaResult(float(score), {key: by_key[key] for key in hypotheses})


class _JavaMetric(CorpusMetric):
    _score: Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], JavaResult]

    def compute(self) -> Tensor:
        """Score all pictures of all ranks; raises what the function of the same name does."""
        return torch.tensor(self._score(*self.corpus()).score, device=self.device)


class Meteor(_JavaMetric):
    """METEOR over all pictures of all ranks, the same for any number of ranks; each rank starts Java once.

    Example:
        >>> metric = Meteor()
        >>> metric.update(["1"], ["a red circle"], [["a big red circle"]])
        >>> metric.corpus()[0]
        {'1': 'a red circle'}
    """

    _score = staticmethod(meteor)


class Spice(_JavaMetric):
    """SPICE over all pictures of all ranks, the same for any number of ranks; each rank starts Java once.

    Example:
        >>> metric = Spice()
        >>> metric.update(["1"], ["a red circle"], [["a big red circle"]])
        >>> metric.corpus()[0]
        {'1': 'a red circle'}
    """

    _score = staticmethod(spice)


def check_java(name: str, files: Sequence[str]) -> None:
    """Refuse to start what cannot run.

    Args:
        name: Of the score.
        files: What it needs beside Java, inside pycocoevalcap's folder.

    Raises:
        FileNotFoundError: If something is missing.
    """
    if shutil.which("java") is None:
        raise FileNotFoundError(
            f"{name} runs in Java, and there is no java on the PATH. Expected Java 8 or later; install a runtime "
            "(Debian: default-jre-headless), or leave the score out."
        )
    folder = package_folder()
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name} lacks {', '.join(missing)} in {folder}. Expected Stanford CoreNLP 3.6.0 and its models for SPICE "
            "(`python -m pycocoevalcap.spice.get_stanford_models` in that folder fetches them), a whole installation "
            "of pycocoevalcap for METEOR; or leave the score out."
        )


def package_folder() -> Path:
    """Where pycocoevalcap lies.

    Example:
        >>> package_folder().name
        'pycocoevalcap'
    """
    spec = find_spec("pycocoevalcap")
    assert spec is not None  # a dependency
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


class _NoLock:
    def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass


@contextmanager
def _java(
    name: str, files: Sequence[str], hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> Iterator[tuple[dict[str, list[str]], dict[str, list[str]]]]:
    """Check what is needed, speak English to Java, and give tokens of references and hypotheses."""
    check_corpus(name, hypotheses, references)
    check_java(name, files)
    before = os.environ.get("JAVA_TOOL_OPTIONS")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before or ''} {_ENGLISH}".strip()
    try:
        yield (
            {key: [tokenize(text) for text in references[key]] for key in hypotheses},
            {key: [tokenize(text)] for key, text in hypotheses.items()},
        )
    finally:
        if before is None:
            del os.environ["JAVA_TOOL_OPTIONS"]
        else:
            os.environ["JAVA_TOOL_OPTIONS"] = before
