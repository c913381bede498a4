"""The page itself, in gradio; on loopback, with nothing fetched from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synth2_lightning.demo.answers import Answerer
from synth2_lightning.demo.port import HOST, refuse_taken_port

MAX_FILE_SIZE = "100mb"
_FONT = ("system-ui", "sans-serif")  # gradio's own come from a font server
_CSS = """
.caption textarea {font-size: 1.6rem; line-height: 1.3;}
.note {color: var(--body-text-color-subdued);}
.gallery .caption-label {max-width: 100%; white-space: normal;}
"""
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"


def serve_page(answerer: Answerer, title: str, examples: Sequence[Path], pairs_note: str, port: int) -> Any:
    """Start the page and return at once.

    Args:
        answerer: Answers.
        title: What the page says of the captioner.
        examples: Pictures to begin with; the first is shown when the page opens.
        pairs_note: What to say above the synthetic pairs.
        port: Of the loopback address.

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
        css=_CSS,
        app_kwargs={"middleware": [Middleware(_OnlyFromHere)]},
    )
    return page


def _build(answerer: Answerer, title: str, examples: Sequence[str], pairs_note: str) -> gradio.Blocks:
    with gradio.Blocks(title=f"synth2 demo: {title}", analytics_enabled=False) as page:
        gradio.HTML(f"<h2>What does it say?</h2><div class='note'>{escape(title)}</div>")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                picture = gradio.Image(
                    label="Drop a picture",
                    elem_classes="picture",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=320,
                )
                if examples:
                    gradio.Examples([[path] for path in examples], picture, label="Pictures that it was validated on")
            with gradio.Column(scale=5, min_width=480):
                caption = gradio.Textbox(label="Caption", interactive=False, elem_classes="caption")
                note = gradio.HTML(visible=False)
                words = gradio.Gallery(
                    label="Where it looked for each word",
                    elem_classes="words",
                    columns=7,
                    height="auto",
                    object_fit="contain",
                )
                pairs = gradio.Gallery(
                    label="The most similar synthetic pairs that it learnt from",
                    elem_classes="pairs",
                    columns=6,
                    height="auto",
                )
                gradio.HTML(_note(pairs_note), visible=bool(pairs_note))

        def show(file: Mapping[str, Any] | None) -> list[Any]:
            if file is None:
                return ["", gradio.update(visible=False), [], []]
            try:
                answer = answerer.answer(Path(file["path"]))
            except OSError as error:
                return ["", gradio.update(value=_note(str(error)), visible=True), [], []]
            found = [(each.picture, f"{each.caption}") for each in answer.neighbours]
            explained = gradio.update(value=_note(answer.words_note), visible=bool(answer.words_note))
            return [answer.caption, explained, answer.words, found]

        # Not through gradio's own reader of pictures, which knows less of bad ones; the path is still held to uploads.
        picture.change(show, picture, [caption, note, words, pairs], preprocess=False, api_name="caption")
        if examples:
            page.load(lambda: examples[0], None, picture, api_name=False)
    return page


def _note(text: str) -> str:
    return f"<div class='note'>{escape(text)}</div>"


class _OnlyFromHere:
    """Forbids the browser to fetch anything from elsewhere, whatever gradio's scripts may hold."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
            await send(message)

        await self.app(scope, receive, send_with_policy)
