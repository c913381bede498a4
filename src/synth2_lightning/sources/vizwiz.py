"""VizWiz-Captions (Gurari et al., arXiv 2002.08565): images taken by blind people."""

from synth2_lightning.sources.coco import CocoSource


class VizwizSource(CocoSource):
    """Image source of VizWiz-Captions, without rejected and canned captions.

    For images of too low quality, annotators chose a canned sentence (``is_precanned``); spam was rejected
    (``is_rejected``). Images without another caption are skipped and counted.

    Args:
        annotations: Path or URL of the JSON file, such as ``val.json``.
        images: Folder that its ``file_name`` entries are relative to.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.
    """

    def __init__(self, annotations: str, images: str, name: str = "vizwiz", limit: int | None = None) -> None:
        super().__init__(annotations, images, name, limit)

    def reject(self, annotation: dict[str, object]) -> str:
        """Return the reason to skip a rejected or canned caption; empty for others.

        Raises:
            KeyError: If the annotation lacks ``is_rejected`` or ``is_precanned``.
        """
        if annotation["is_rejected"]:
            return "rejected captions"
        return "canned captions" if annotation["is_precanned"] else ""
