"""Messages for what goes wrong between an address and the cache."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from synth2_lightning.io.remote_filesystems import SECONDS_TO_BEGIN, SECONDS_TO_LIST, SLOWEST

_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "PermissionError", "ProfileNotFound")
ROOM = (
    "Expected a cache folder on a local disk that can be written to, with room left: make some (`synth2 cache "
    "--clear` deletes what no process uses), or set SYNTH2_CACHE to another folder. Start again: what has arrived "
    "whole is kept."
)


def refuse_secrets(address: str) -> None:
    """Refuse an address that holds a password or a signed query.

    Raises:
        ValueError: If it does; the message does not repeat it.
    """
    parts = urlsplit(address)
    if parts.password or (parts.scheme in ("http", "https") and parts.query):
        raise ValueError(
            f"The address {parts.scheme}://…{parts.path} holds a password, a key or a query, which would end in logs "
            "and manifests; expected one without. Credentials belong into the environment, or into the files of the "
            "protocol's package (AWS_PROFILE, ~/.aws/credentials)."
        )


@contextmanager
def explained(address: str, what: str) -> Iterator[None]:
    """Say what a file system's error means for whoever wrote the address."""
    try:
        yield
    except Exception as error:  # every file system has errors of its own
        raise explain(error, address, what) from error


def explain(error: Exception, address: str, what: str) -> Exception:
    """Return an error for the user in place of one of fsspec, of a client library or of the system."""
    cause = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and isinstance(cause, Exception)
        and is_of_http(cause)
        and getattr(cause, "status", 0) != 404
    ):
        error = cause  # fsspec calls every failure to list a file of http so
    protocol, name = address.partition("://")[0], type(error).__name__
    start = f"The {what} at {address!r} cannot be fetched: {name}: {error}."
    match error:
        case ImportError():
            way = "pip install 'synth2-lightning[s3]'" if protocol == "s3" else "install the package that it names"
            return OSError(f"{start} The protocol {protocol}:// needs a package that is not here: {way}.")
        case FileNotFoundError():
            return FileNotFoundError(
                f"The {what} is not at {address!r}: {error}. Expected a file or a folder there: look at the bucket's "
                f"name, the path, and the server ({_server(protocol)})."
            )
        case TimeoutError():
            return OSError(
                f"{start} The answer was not whole in time: a listing has {SECONDS_TO_LIST:.0f} seconds, a file "
                f"{SECONDS_TO_BEGIN:.0f} and one more per {SLOWEST} bytes. See whether the server works, or copy "
                "the files by other means."
            )
        case ValueError() if "rotocol" in str(error):
            return ValueError(
                f"{start} Expected a path, package://PACKAGE/PATH, weights://NAME/PATH, or an address of a protocol "
                "that fsspec knows, such as s3://BUCKET/PATH."
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OSError(f"{start} {ROOM}")
    if name in _NO_CREDENTIALS:
        return OSError(
            f"{start} Expected credentials that may list and read it, in the environment (for s3: AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), in the protocol's own files, or a role of the machine; "
            f"""what is public needs FSSPEC_{protocol.upper()}='{{"anon": true}}'."""
        )
    return OSError(
        f"{start} Expected a server that answers ({_server(protocol)}): look whether it runs and can be reached from "
        "here. Start again: what has arrived whole is kept."
    )


def _server(protocol: str) -> str:
    names = [f"FSSPEC_{protocol.upper()}_ENDPOINT_URL", *(["AWS_ENDPOINT_URL"] if protocol == "s3" else [])]
    found = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    return found[0] if found else f"the default one; {' or '.join(names)} names another"


@contextmanager
def stored(address: str, folder: Path) -> Iterator[None]:
    """Say what an error of this machine's disk means."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        raise OSError(f"{address} cannot be stored at {folder}: {error}. {ROOM}") from error


def is_of_http(error: Exception) -> bool:
    """Whether fsspec took an error of a web server or of the way to it for a missing file."""
    return type(error).__module__.startswith("aiohttp")
