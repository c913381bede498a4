"""Download and upload of exports on the Hugging Face Hub; authentication is left to huggingface_hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from synth2_lightning.export.component_files import FILES
from synth2_lightning.io.locations import resolve

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WHAT = "exported captioner"


def locate_export(location: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of an export, downloaded from the Hub if needed.

    Args:
        location: A path, or ``OWNER/NAME`` on the Hub; an existing local path has precedence.
        revision: Branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: If the path does not exist.
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
    except Exception as error:  # the Hub client raises unrelated exception types
        raise OSError(
            f"The {_WHAT} {name!r} is neither a local folder ({Path(name).absolute()}) nor available on the Hub: "
            f"{' '.join(str(error).split())[:300]}. Expected the folder of an export or its name on the Hub; without a "
            "network, copy the folder to this machine and give its path."
        ) from error


def push_export(folder: Path, repository: str, api: "HfApi | None" = None) -> str:
    """Upload an export; a repository that does not exist is created as a public one.

    Args:
        folder: The export.
        repository: ``OWNER/NAME``.
        api: Client of the Hub; by default one with the token of ``hf auth login`` or of the environment.

    Returns:
        URL of the commit.

    Raises:
        ValueError: If the name is not of the form ``OWNER/NAME``.
        OSError: If the Hub cannot be reached, or refuses the upload.
    """
    check_repository(repository)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(repository, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, repo_type="model", commit_message="Upload a captioner"
        )
    except Exception as error:  # the Hub client raises unrelated exception types
        raise OSError(
            f"{folder} could not be uploaded to {repository!r}: {' '.join(str(error).split())[:300]}. Expected a "
            "repository with write access, a network, and a login: run `hf auth login`, or set HF_TOKEN. The folder "
            "is complete; `hf upload` can upload it later."
        ) from error
    return str(commit)


def check_repository(name: str) -> None:
    """Refuse a name that is not of the form ``OWNER/NAME``.

    Raises:
        ValueError: If it is not.

    Example:
        >>> check_repository("me/captioner")
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"The repository's name is {name!r}; expected OWNER/NAME, such as 'me/captioner'.")
