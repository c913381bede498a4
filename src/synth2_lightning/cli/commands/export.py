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
    push_to: str | None = None,
    trust: Sequence[str] = (),
) -> None:
    """Write a trained captioner as a folder to share, or to the Hugging Face Hub.

    Args:
        run: Folder of a run, whose best checkpoint is taken, or a checkpoint.
        out: Folder to write; an earlier export is replaced.
        license: Of the weights, as the Hub writes it, such as apache-2.0.
        card: The protocol.json of another score.
        push_to: Repository of the Hub (OWNER/NAME) to upload it to, after `hf auth login`.
        trust: Package of yours whose classes the checkpoint may name, such as a decoder.

    Raises:
        OSError: If the run does not exist, the folder cannot be written, or the Hub is not reached.
        ValueError: If it is no captioner's run, or the repository has a wrong name.

    Example:
        synth2 export runs/version_0 --out my-captioner --license apache-2.0
    """
    from synth2_lightning.export.exported import export_captioner
    from synth2_lightning.export.hub import check_repository, push_export

    if push_to is not None:
        check_repository(push_to)  # before minutes are spent on loading the model
    folder = export_captioner(run, out, license, card, trust)
    console = MessageConsole()
    console.print(f"The captioner is in {folder}", soft_wrap=True)
    if push_to is not None:
        console.print(f"It is at {push_export(folder, push_to)}", soft_wrap=True)
