"""``synth2 demo``."""

from collections.abc import Sequence

from synth2_lightning.cli.errors import hide_noise


def demo(
    run: str,
    *,
    port: int = 7860,
    device: str | None = None,
    trust: Sequence[str] = (),
    from_hub: Sequence[str] = (),
) -> None:
    """Serve a local demo page of a trained captioner.

    It shows the caption of an image, and an attention map of each word. Other machines cannot open the page. Needs
    gradio: pip install "synth2-lightning[demo]".

    Args:
        run: Folder of a run, a checkpoint, or an exported captioner, also by its name on the Hugging Face Hub
            (OWNER/NAME or OWNER/NAME@REVISION).
        port: Port on 127.0.0.1.
        device: Device, such as cpu, cuda or cuda:1. By default the accelerator, if there is one.
        trust: Your own package whose classes the checkpoint may name, such as a decoder.
        from_hub: Model on the Hugging Face Hub that may be downloaded for the captioner.

    Example:
        synth2 demo runs/version_0 --port 8000
    """
    from synth2_lightning.export.hub import locate_export

    locate_export(run)  # before the slow imports
    from synth2_lightning.demo.command import serve_demo
    from synth2_lightning.io.trusted_packages import trusting

    hide_noise()
    with trusting(trust):
        serve_demo(run, port, device, from_hub)
