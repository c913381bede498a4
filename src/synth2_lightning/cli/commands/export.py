"""``synth2 export``."""

from collections.abc import Sequence
from pathlib import Path

from synth2_lightning.io.console import MessageConsole


def export(
    run: str,
    *,
    out: Path,
    license: str | None = None,
    card: Sequence[Path] = (),
    onnx: bool = False,
    push_to: str | None = None,
    trust: Sequence[str] = (),
) -> None:
    """Export a trained captioner to a self-contained folder, and optionally to the Hugging Face Hub.

    Args:
        run: Folder of a run (its best checkpoint, or else its last one), or a checkpoint.
        out: Folder to write; an earlier export is replaced.
        license: License of the weights as a Hub identifier, such as apache-2.0.
        card: The protocol.json of an additional score.
        onnx: Also write ONNX graphs, after a comparison of their outputs with those of torch; needs the extra onnx.
        push_to: Repository on the Hub (OWNER/NAME) to upload to, after `hf auth login`.
        trust: Your own package whose classes the checkpoint may name, such as a decoder.

    Example:
        synth2 export runs/version_0 --out my-captioner --license apache-2.0
    """
    from synth2_lightning.io.hub import check_repository
    from synth2_lightning.io.locations import resolve

    # Before the slow imports:
    if push_to is not None:
        check_repository(push_to)
    resolve(run, "run or checkpoint")
    from synth2_lightning.export.exported import export_captioner
    from synth2_lightning.export.push import push_folder

    folder = export_captioner(run, out, license, card, trust, onnx)
    console = MessageConsole()
    console.print(f"Exported the captioner to {folder}", soft_wrap=True)
    if push_to is not None:
        console.print(f"Uploaded it to {push_folder(folder, push_to)}", soft_wrap=True)
