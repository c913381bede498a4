"""HTML of captioned images; self-contained, with the images as data URLs."""

import base64
from collections.abc import Iterable
from html import escape
from io import BytesIO

from PIL import Image

STYLE = """
.figures {display: flex; flex-wrap: wrap; gap: 0.75rem;}
.figures figure {margin: 0; width: 7rem;}
.figures.wide figure {width: 9rem;}
.figures img {width: 100%; display: block; border-radius: 4px; transition: transform 0.15s;}
.figures figure:hover img {transform: scale(1.6); position: relative; z-index: 1;}
.figures figcaption {padding-top: 0.3rem; line-height: 1.25; overflow-wrap: anywhere;}
.figures .missing {aspect-ratio: 1; border: 1px dashed; border-radius: 4px; padding: 0.5rem; opacity: 0.6;}
.note {opacity: 0.75; margin-bottom: 0.6rem;}
"""


def render_figures(figures: Iterable[tuple[Image.Image | None, str]], style: str = "") -> str:
    """Return HTML of images in a row with text below each.

    Args:
        figures: Images (``None`` if missing) and their texts, which are escaped.
        style: Additional CSS class.

    Example:
        >>> render_figures([(None, "a < b")])
        '<div class="figures "><figure><div class="missing">no image</div><figcaption>a &lt; b</figcaption>...'
    """
    return f'<div class="figures {style}">{"".join(_render(*figure) for figure in figures)}</div>'


def render_note(text: str) -> str:
    """Return HTML of a secondary text, which is escaped."""
    return f'<div class="note">{escape(text)}</div>'


def _render(image: Image.Image | None, text: str) -> str:
    if image is None:
        content = '<div class="missing">no image</div>'
    else:
        file = BytesIO()
        image.save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        content = f'<img src="data:image/png;base64,{data}" alt="{escape(text)}">'
    return f"<figure>{content}<figcaption>{escape(text)}</figcaption></figure>"
