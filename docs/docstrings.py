"""Docstrings of the package in the form that griffe reads: sections named ``Examples``, links in place of roles."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of all objects."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring: called once for each object that griffe has read."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":\w+:`~?([\w.]+)`", _link, text)


def _link(role: re.Match[str]) -> str:
    name = role[1].rpartition(".")[2]
    # Optional: packages without a page, such as io, have no anchors.
    return f'<autoref optional identifier="{role[1]}"><code>{name}</code></autoref>'
