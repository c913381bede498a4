"""Repositories on the Hugging Face Hub: names, downloads to its cache, uploads; its client authenticates."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

from synth2_lightning.io.messages import one_line

HF_SCHEME = "hf://"
Kind = Literal["model", "dataset"]
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([^@/\s]+))?")
_DATASETS = "datasets/"


class Repository(NamedTuple):
    """A repository on the Hub.

    Attributes:
        name: ``OWNER/NAME``.
        revision: Branch, tag or commit; ``None`` is the main branch. A commit makes runs reproducible.
        kind: Whether it is a model or a data set.
    """

    name: str
    revision: str | None = None
    kind: Kind = "model"


def parse_repository(text: str) -> Repository | None:
    """Return the repository that ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` names; ``None`` for other texts.

    Example:
        >>> parse_repository("me/captioner@v1")
        Repository(name='me/captioner', revision='v1', kind='model')
    """
    match = _NAME.fullmatch(text)
    return Repository(match[1], match[2]) if match else None


def parse_address(address: str) -> tuple[Repository, str]:
    """Return the repository of an address, and the path in it; the notation is that of ``huggingface_hub``.

    Revisions with a slash, such as ``refs/pr/1``, are not supported.

    Raises:
        ValueError: If it is not of the form ``hf://[datasets/]OWNER/NAME[@REVISION][/PATH]``.

    Example:
        >>> parse_address("hf://datasets/me/captions@v1/captions.parquet")
        (Repository(name='me/captions', revision='v1', kind='dataset'), 'captions.parquet')
    """
    rest = address.removeprefix(HF_SCHEME)
    kind: Kind = "dataset" if rest.startswith(_DATASETS) else "model"
    owner, _, rest = rest.removeprefix(_DATASETS).partition("/")
    name, _, inner = rest.partition("/")
    found = parse_repository(f"{owner}/{name}")
    if found is None or inner.startswith("/") or ".." in inner.split("/"):
        raise ValueError(
            f"{address!r} is not an address on the Hugging Face Hub; expected hf://OWNER/NAME for a model or "
            "hf://datasets/OWNER/NAME for a data set, with @REVISION and /PATH if needed."
        )
    return found._replace(kind=kind), inner


def fetch_address(address: str, what: str, is_only_cached: bool = False) -> Path:
    """Return the local copy of an ``hf://`` address, downloaded to the Hub's cache if needed.

    Args:
        address: As for :func:`parse_address`.
        what: Name of the object, for messages.
        is_only_cached: Download nothing.

    Raises:
        OSError: If the Hub cannot be reached, or does not have it.
        ValueError: As for :func:`parse_address`.
    """
    repository, inner = parse_address(address)
    patterns = [inner, f"{inner}/**"] if inner else None
    return download(repository, what, patterns, is_only_cached) / inner


def download(
    repository: Repository, what: str, patterns: Collection[str] | None = None, is_only_cached: bool = False
) -> Path:
    """Return the folder of a repository in the Hub's cache; files that are missing there are downloaded.

    Nothing is imported from it, and Python files are not downloaded. Without a network, or with ``HF_HUB_OFFLINE=1``,
    the cache is used alone.

    Args:
        repository: The repository.
        what: Name of the object, for messages.
        patterns: Files to download; ``None`` for all.
        is_only_cached: Download nothing.

    Raises:
        OSError: If the Hub cannot be reached, or has no such repository or revision.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repository.name,
                repo_type=repository.kind,
                revision=repository.revision,
                allow_patterns=None if patterns is None else list(patterns),
                ignore_patterns=["*.py"],
                local_files_only=is_only_cached,
            )
        )
    except Exception as error:  # the Hub client raises unrelated exception types
        where = "in the local cache" if is_only_cached else "available on the Hub"
        at = f" at {repository.revision!r}" if repository.revision else ""
        raise OSError(
            f"The {what} {repository.name!r}{at} is not {where}: {one_line(error)}. Expected the "
            f"name of a {repository.kind} on the Hub, and a login (`hf auth login`) if it is private; without a "
            "network, copy the folder to this machine and give its path."
        ) from error


def upload(
    folder: Path,
    repository: str,
    kind: Kind,
    patterns: Collection[str],
    private: bool = False,
    branch: str | None = None,
) -> str:
    """Upload files of a folder; a repository or branch that does not exist is created.

    Args:
        folder: The folder.
        repository: ``OWNER/NAME``.
        kind: Kind of the repository.
        patterns: Files to upload.
        private: Whether a new repository is private.
        branch: Branch to upload to; by default the main branch.

    Returns:
        URL of the commit.

    Raises:
        OSError: If the Hub cannot be reached, or refuses the upload.
        ValueError: If the name is not of the form ``OWNER/NAME``.
    """
    check_repository(repository)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, exist_ok=True, private=private or None)
        if branch is not None:
            api.create_branch(repository, repo_type=kind, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type=kind,
            revision=branch,
            allow_patterns=list(patterns),
            delete_patterns=list(patterns),  # files of an earlier upload that this folder no longer has
            commit_message="Upload with synth2-lightning",
        )
    except Exception as error:  # the Hub client raises unrelated exception types
        raise OSError(
            f"{folder} could not be uploaded to {repository!r}: {one_line(error)}. Expected a "
            "repository with write access, a network, and a login: run `hf auth login`, or set HF_TOKEN. The folder "
            "is complete; `synth2 push` can upload it later."
        ) from error
    return str(commit)


def check_repository(name: str) -> None:
    """Raise on a name that is not of the form ``OWNER/NAME``.

    Raises:
        ValueError: If it is not.
    """
    found = parse_repository(name)
    if found is None or found.revision is not None:
        raise ValueError(f"The repository's name is {name!r}; expected OWNER/NAME, such as 'me/captioner'.")
