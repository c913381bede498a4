"""Exports on the Hugging Face Hub; who may read and write there is huggingface_hub's business, and no token is seen."""

from pathlib import Path
from typing import TYPE_CHECKING

from synth2_lightning.locations import resolve
from synth2_lightning.sharing.files import FILES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WHAT = "exported captioner"


def locate_export(location: str | Path, revision: str | None = None) -> Path:
    """Find the folder of an export, here or on the Hub.

    Args:
        location: A path, or ``OWNER/NAME`` on the Hub; what lies here wins.
        revision: Branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: If nothing lies there.
        OSError: If the Hub cannot be reached, or has no such repository.
    """
    name = str(location)
    is_local = isinstance(location, Path) or "://" in name or name.startswith((".", "/", "~")) or name.count("/") != 1
    if is_local or Path(name).exists():
        return resolve(location, _WHAT)
    from huggingface_hub import snapshot_download

    try:
        patterns = ["config.json", "model.safetensors", "README.md", f"{FILES}/**"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the Hub client raises errors of many families
        raise OSError(
            f"The {_WHAT} {name!r} is neither a folder here ({Path(name).absolute()}), nor could it be had from the "
            f"Hub: {' '.join(str(error).split())[:300]}. Expected an export's folder or its name on the Hub; without a "
            "network, copy the folder here and name its path."
        ) from error


def push_export(folder: Path, repository: str, api: "HfApi | None" = None) -> str:
    """Upload an export; the repository is made if there is none, for everybody to see.

    Args:
        folder: The export.
        repository: ``OWNER/NAME``.
        api: A client of the Hub; by default one that has the token of ``hf auth login``, or of the environment.

    Returns:
        Address of what was uploaded.

    Raises:
        ValueError: If the name is no ``OWNER/NAME``.
        OSError: If the Hub cannot be reached, or refuses.
    """
    check_repository(repository)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(repository, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, repo_type="model", commit_message="Share a captioner"
        )
    except Exception as error:  # the Hub client raises errors of many families
        raise OSError(
            f"{folder} could not be uploaded to {repository!r}: {' '.join(str(error).split())[:300]}. Expected a name "
            "that you may write to, a network, and a login: run `hf auth login`, or set HF_TOKEN. The folder itself is "
            "whole: `hf upload` takes it as well."
        ) from error
    return str(commit)


def check_repository(name: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        ValueError: If the name is no ``OWNER/NAME``.

    Example:
        >>> check_repository("me/captioner")
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"The repository is called {name!r}; expected OWNER/NAME, such as 'me/captioner'.")
