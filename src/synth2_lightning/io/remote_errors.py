"""Error messages for fetching and caching URLs."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from synth2_lightning.io.remote_filesystems import BASE_SECONDS, LIST_SECONDS, MIN_BYTES_PER_SECOND

_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "PermissionError", "ProfileNotFound")
_EXPECTED_CACHE = (
    "Expected a writable cache folder on a local disk with free space: free some (`synth2 cache --clear` deletes "
    "entries that are not in use), or set SYNTH2_CACHE to another folder. Start again: complete files are kept."
)


def check_no_secrets(address: str) -> None:
    """Raise if a URL contains a password, or is an HTTP URL with a query.

    Raises:
        ValueError: If it does; the message does not contain the secret.
    """
    parts = urlsplit(address)
    if parts.password or (parts.scheme in ("http", "https") and parts.query):
        raise ValueError(
            f"The address {parts.scheme}://…{parts.path} contains a password, a key or a query, which would appear in "
            "logs and manifests; expected one without. Put credentials in the environment, or in the files of the "
            "protocol's package (AWS_PROFILE, ~/.aws/credentials)."
        )


@contextmanager
def fetch_errors(address: str, what: str) -> Iterator[None]:
    """Convert errors of a file system into errors for the user."""
    try:
        yield
    except Exception as error:  # file systems raise errors of many types
        raise explain(error, address, what) from error


def explain(error: Exception, address: str, what: str) -> Exception:
    """Return an error for the user in place of one of fsspec, a client library or the system."""
    cause = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and isinstance(cause, Exception)
        and is_of_http(cause)
        and getattr(cause, "status", 0) != 404
    ):
        error = cause  # fsspec raises FileNotFoundError for every HTTP failure
    protocol, name = address.partition("://")[0], type(error).__name__
    start = f"The {what} at {address!r} cannot be fetched: {name}: {error}."
    match error:
        case ImportError():
            fix = "pip install 'synth2-lightning[s3]'" if protocol == "s3" else "install it"
            return OSError(f"{start} The protocol {protocol}:// needs a package that is not installed: {fix}.")
        case FileNotFoundError():
            return FileNotFoundError(
                f"The {what} is not at {address!r}: {error}. Expected a file or a folder: check the bucket's name, the "
                f"path, and the server ({_server(protocol)})."
            )
        case TimeoutError():
            return OSError(
                f"{start} The response was not complete in time; expected a listing within {LIST_SECONDS:.0f} seconds, "
                f"and a file within {BASE_SECONDS:.0f} and one more per {MIN_BYTES_PER_SECOND} bytes. Check the "
                "server, or copy the files by other means."
            )
        case ValueError() if "rotocol" in str(error):
            return ValueError(
                f"{start} Expected a path, package://PACKAGE/PATH, weights://NAME/PATH, or a URL with a protocol of "
                "fsspec, such as s3://BUCKET/PATH."
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OSError(f"{start} {_EXPECTED_CACHE}")
    if name in _NO_CREDENTIALS:
        return OSError(
            f"{start} Expected credentials with permission to list and read it, in the environment (for s3: "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), in the protocol's own files, or a role of "
            f"""the machine. For public files set FSSPEC_{protocol.upper()}='{{"anon": true}}'."""
        )
    return OSError(
        f"{start} Expected a server that responds ({_server(protocol)}): check that it runs and can be reached "
        "from this machine. Start again: complete files are kept."
    )


def _server(protocol: str) -> str:
    names = [f"FSSPEC_{protocol.upper()}_ENDPOINT_URL", *(["AWS_ENDPOINT_URL"] if protocol == "s3" else [])]
    found = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    return found[0] if found else f"the default one; set another with {' or '.join(names)}"


@contextmanager
def storage_errors(address: str, folder: Path) -> Iterator[None]:
    """Convert errors of the local disk into errors for the user."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
        raise OSError(f"{address} cannot be stored at {folder}: {error}. {_EXPECTED_CACHE}") from error


def is_of_http(error: Exception) -> bool:
    """Whether an error is one of the HTTP client."""
    return type(error).__module__.startswith("aiohttp")
