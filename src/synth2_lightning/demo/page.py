"""The gradio page, served on loopback without requests to other hosts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from synth2_lightning.demo.answers import Answerer
from synth2_lightning.demo.figures import STYLE, render_figures, render_note
from synth2_lightning.demo.guard import TRUSTED_HOSTS, OwnPageOnly
from synth2_lightning.demo.port import HOST, check_free_port

MAX_FILE_SIZE = "100mb"
_FONT = ("system-ui", "sans-serif")  # gradio's defaults are downloaded from a font server
_STYLE = """
.caption textarea {font-size: 1.6rem; line-height: 1.3;}
.image img {width: 100%; height: 100%; object-fit: contain;}
"""
_LEGEND = (
    "Warmer colors mean more attention, on the same scale for all words. "
    "Attention is often similar for all words, and is not always the cause of a word."
)


def serve_page(
    answerer: Answerer, title: str, examples: Sequence[Path], pairs_note: str, port: int, uploads: Path
) -> Any:
    """Start the page in a background thread.

    Args:
        answerer: Computes the page's contents.
        title: Name of the captioner.
        examples: Example images; the page opens with the first.
        pairs_note: Text above the training pairs.
        port: Port on the loopback address.
        uploads: gradio's folder of uploaded files; requests can read no other files.

    Returns:
        The ``gradio.Blocks``, with ``local_url`` and ``close()``.

    Raises:
        OSError: If the port is taken.
    """
    check_free_port(port)
    page = _build(answerer, title, [str(path) for path in examples], pairs_note)
    page.queue(default_concurrency_limit=1).launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=["gradio"],
        max_file_size=MAX_FILE_SIZE,
        theme=gradio.themes.Default(font=_FONT, font_mono=("ui-monospace", "monospace")),
        css=_STYLE + STYLE,
        app_kwargs={
            "middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=list(TRUSTED_HOSTS), www_redirect=False),
                Middleware(OwnPageOnly, uploads=uploads),
            ]
        },
    )
    return page


def _build(answerer: Answerer, title: str, examples: Sequence[str], pairs_note: str) -> gradio.Blocks:
    page = gradio.Blocks(title=f"synth2 demo: {title}", analytics_enabled=False)
    with page:
        gradio.HTML(f"<h2>Image captioning</h2>{render_note(title)}")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=260):
                image = gradio.Image(
                    label="Drop an image, or paste one",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_classes="image",
                )
                if examples:
                    gradio.Examples([[path] for path in examples], image, label="Validation images")
            with gradio.Column(scale=5, min_width=420):
                caption = gradio.Textbox(label="Caption", interactive=False, elem_classes="caption")
                words = gradio.HTML(elem_classes="words")
                pairs = gradio.HTML(elem_classes="pairs")

        def update(file: Mapping[str, Any] | None) -> tuple[str, str, str]:
            path = None if file is None else file.get("path")
            return ("", "", "") if path is None else describe(answerer, Path(path), pairs_note)

        # Without gradio's preprocessing, whose checks of images are weaker. OwnPageOnly restricts the path to uploads.
        image.change(update, image, [caption, words, pairs], preprocess=False, api_name="caption")
        if examples:
            page.load(lambda: examples[0], None, image, api_visibility="private")
    return page


def describe(answerer: Answerer, file: Path, pairs_note: str) -> tuple[str, str, str]:
    """Return the caption of an image, and HTML of its attention maps and of similar training pairs, or of the error."""
    try:
        answer = answerer.answer(file)
    except OSError as error:
        return "", render_note(str(error)), ""
    words = render_figures(answer.words) if answer.words else render_note(answer.words_note)
    neighbors = [(each.image, f"{each.caption} ({each.similarity:.2f})") for each in answer.neighbors]
    return (
        answer.caption,
        f"<h3>Attention of each word</h3>{render_note(_LEGEND) if answer.words else ''}{words}",
        f"<h3>Most similar training pairs</h3>{render_note(pairs_note)}{render_figures(neighbors, 'wide')}",
    )
