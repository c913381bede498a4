"""Packages of optional extras."""

from importlib.util import find_spec


def require_extra(package: str, extra: str) -> None:
    """Refuse to go on without a package that only an extra of this package installs.

    Args:
        package: Its import name, such as ``"openai"``.
        extra: The extra, such as ``"captions"``.

    Raises:
        ModuleNotFoundError: If the package is not installed.

    Example:
        >>> require_extra("nothing_of_the_kind", "captions")
        Traceback (most recent call last):
        ModuleNotFoundError: The package nothing_of_the_kind is not installed; expected the extra `captions`. Install
        it with `pip install "synth2-lightning[captions]"`.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"The package {package} is not installed; expected the extra `{extra}`. Install it with "
            f'`pip install "synth2-lightning[{extra}]"`.',
            name=package,
        )
