"""The page itself, in gradio; on loopback, with nothing fetched from elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from synth2_lightning.demo.answers import Answerer
from synth2_lightning.demo.figures import STYLE, render_figures, render_note
from synth2_lightning.demo.guard import TRUSTED_HOSTS, OwnPageOnly
from synth2_lightning.demo.port import HOST, refuse_taken_port

MAX_FILE_SIZE = "100mb"
_FONT = ("system-ui", "sans-serif")  # gradio's own come from a font server
_STYLE = """
.caption textarea {font-size: 1.6rem; line-height: 1.3;}
.picture img {width: 100%; height: 100%; object-fit: contain;}
"""
_LEGEND = (
    "The warmer, the more attention, on one scale for all words. "
    "Words of a caption often look at the same places; maps tell where the model looked, not why it said a word."
)


def serve_page(
    answerer: Answerer, title: str, examples: Sequence[Path], pairs_note: str, port: int, uploads: Path
) -> Any:
    """Start the page and return at once.

    Args:
        answerer: Answers.
        title: What the page says of the captioner.
        examples: Pictures to begin with; the first is shown when the page opens.
        pairs_note: What to say above the synthetic pairs.
        port: Of the loopback address.
        uploads: Folder of uploaded files, which is gradio's temporary one; no other file is read for a request.

    Returns:
        gradio's page, with ``local_url`` and ``close()``.

    Raises:
        OSError: If the port is taken.
    """
    refuse_taken_port(port)
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
        gradio.HTML(f"<h2>What does this captioner say?</h2>{render_note(title)}")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=260):
                picture = gradio.Image(
                    label="Drop a picture, or paste one",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_classes="picture",
                )
                if examples:
                    gradio.Examples([[path] for path in examples], picture, label="Pictures that it is judged by")
            with gradio.Column(scale=5, min_width=420):
                caption = gradio.Textbox(label="Caption", interactive=False, elem_classes="caption")
                words = gradio.HTML(elem_classes="words")
                pairs = gradio.HTML(elem_classes="pairs")

        def show(file: Mapping[str, Any] | None) -> tuple[str, str, str]:
            path = None if file is None else file.get("path")
            return ("", "", "") if path is None else describe(answerer, Path(path), pairs_note)

        # Not through gradio's own reader, which knows less of bad pictures. OwnPageOnly holds the path to uploads.
        picture.change(show, picture, [caption, words, pairs], preprocess=False, api_name="caption")
        if examples:
            page.load(lambda: examples[0], None, picture, api_visibility="private")
    return page


def describe(answerer: Answerer, file: Path, pairs_note: str) -> tuple[str, str, str]:
    """Give the caption of a picture, and as HTML where its words looked and what is alike; or why there is none."""
    try:
        answer = answerer.answer(file)
    except OSError as error:
        return "", render_note(str(error)), ""
    words = render_figures(answer.words) if answer.words else render_note(answer.words_note)
    neighbours = [(each.picture, f"{each.caption} ({each.similarity:.2f})") for each in answer.neighbours]
    return (
        answer.caption,
        f"<h3>Where it looked for each word</h3>{render_note(_LEGEND) if answer.words else ''}{words}",
        f"<h3>What it learnt from that is most alike</h3>{render_note(pairs_note)}{render_figures(neighbours, 'wide')}",
    )
