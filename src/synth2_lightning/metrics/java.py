"""METEOR and SPICE, computed by pycocoevalcap in Java.

Java runs with the US English locale and UTF-8: METEOR formats numbers by locale, and a decimal comma cannot be parsed.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from threading import Lock

from synth2_lightning.metrics.corpus import CorpusResult, check_corpus, tokenize_corpus

_LOCALE = "-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8"
_METEOR_FILES = ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz")
_SPICE_FILES = (
    "spice/spice-1.0.jar",
    "spice/lib/stanford-corenlp-3.6.0.jar",
    "spice/lib/stanford-corenlp-3.6.0-models.jar",
)


def meteor(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusResult:
    """Return METEOR 1.5 in [0, 1] (M. Denkowski and A. Lavie 2014): matches of words, stems, synonyms and paraphrases.

    Args:
        hypotheses: Generated caption by key.
        references: Reference captions by key; keys without a hypothesis are ignored.

    Raises:
        FileNotFoundError: If Java or a METEOR file is missing.
        OSError: If Java fails.
        ValueError: If there is no image, or an image has no references.

    Example:
        >>> meteor({}, {})
        Traceback (most recent call last):
        ValueError: METEOR got no images; expected at least one caption with references.
    """
    with _java("METEOR", _METEOR_FILES, hypotheses, references) as (words, wanted):
        from pycocoevalcap.meteor.meteor import Meteor as CocoMeteor

        scorer = CocoMeteor()
        try:
            score, scores = scorer.compute_score(wanted, words)
        except (ValueError, OSError) as error:
            scorer.lock = Lock()  # the destructor would wait for the other one, which is still held
            raise OSError(
                f"METEOR's Java process stopped without returning scores ({error}). Expected Java 8 or later with 2 GB "
                "of free memory; check `java -version`."
            ) from error
        finally:
            scorer.meteor_p.stdout.close()  # the destructor does not close these
            scorer.meteor_p.stderr.close()
    return CorpusResult(float(score), dict(zip(hypotheses, map(float, scores), strict=True)))


def spice(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusResult:
    """Return SPICE in [0, 1] (P. Anderson et al. 2016): matches of objects, attributes and relations in scene graphs.

    Args:
        hypotheses: Generated caption by key.
        references: Reference captions by key; keys without a hypothesis are ignored.

    Raises:
        FileNotFoundError: If Java or a SPICE file is missing; files are not downloaded.
        OSError: If Java fails.
        ValueError: If there is no image, or an image has no references.
    """
    with _java("SPICE", _SPICE_FILES, hypotheses, references) as (words, wanted):
        from pycocoevalcap.spice.spice import Spice as CocoSpice

        try:
            score, scores = CocoSpice().compute_score(wanted, words)
        except CalledProcessError as error:
            raise OSError(
                f"SPICE's Java process failed with exit code {error.returncode}. Expected Java 8 with 8 GB of free "
                "memory; see its output above."
            ) from error
    # SPICE returns scores in the order of the sorted keys.
    by_key = dict(zip(sorted(hypotheses), (float(each["All"]["f"]) for each in scores), strict=True))
    return CorpusResult(float(score), {key: by_key[key] for key in hypotheses})


def check_java(name: str, files: Sequence[str]) -> None:
    """Check that Java and the files of a metric, relative to pycocoevalcap's folder, are installed.

    Raises:
        FileNotFoundError: If Java or a file is missing.
    """
    if shutil.which("java") is None:
        raise FileNotFoundError(
            f"{name} runs in Java, but there is no java on the PATH. Expected Java 8 or later; install a runtime "
            "(Debian: default-jre-headless), or omit the metric."
        )
    folder = package_folder()
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name} lacks {', '.join(missing)} in {folder}. Expected Stanford CoreNLP 3.6.0 and its models for SPICE "
            "(run `python -m pycocoevalcap.spice.get_stanford_models` in that folder), a complete installation of "
            "pycocoevalcap for METEOR. Install them, or omit the metric."
        )


def package_folder() -> Path:
    """Return the folder of pycocoevalcap."""
    spec = find_spec("pycocoevalcap")
    assert spec is not None  # a dependency
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


@contextmanager
def _java(
    name: str, files: Sequence[str], hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> Iterator[tuple[dict[str, list[str]], dict[str, list[str]]]]:
    """Set Java's locale, and yield tokenized hypotheses and references."""
    check_corpus(name, hypotheses, references)
    check_java(name, files)
    before = os.environ.get("JAVA_TOOL_OPTIONS")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before or ''} {_LOCALE}".strip()
    try:
        yield tokenize_corpus(hypotheses, references)
    finally:
        if before is None:
            del os.environ["JAVA_TOOL_OPTIONS"]
        else:
            os.environ["JAVA_TOOL_OPTIONS"] = before
