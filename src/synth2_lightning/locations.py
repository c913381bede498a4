"""Where files lie: a path, or ``package://`` for what travels inside an installed package."""

from importlib.resources import files
from pathlib import Path

_PACKAGE = "package://"


def resolve(location: str | Path, what: str) -> Path:
    """Turn a location into a path that exists.

    Args:
        location: A path (``~`` allowed), or ``package://PACKAGE/PATH`` for a file inside an installed package.
        what: What is looked for, for the message.

    Raises:
        FileNotFoundError: If nothing lies there.

    Example:
        >>> resolve("package://synth2_lightning/py.typed", "marker").name
        'py.typed'
    """
    text = str(location)
    if text.startswith(_PACKAGE):
        package, _, inner = text.removeprefix(_PACKAGE).partition("/")
        path = Path(str(files(package))) / inner
    else:
        path = Path(text).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"The {what} is not at {str(location)!r} (looked at {path.absolute()}). Expected a path that exists, "
            "relative to the folder where the command was started, or package://PACKAGE/PATH for what ships inside a package."
        )
    return path
