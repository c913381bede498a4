"""VizWiz-Captions (Gurari et al., arXiv 2002.08565): pictures that blind people took."""

from typing import Any

from synth2_lightning.sources.coco import CocoSource


class VizwizSource(CocoSource):
    """VizWiz-Captions in its COCO-like file, without captions that were rejected or are the canned one.

    Where a picture was too poor to be described, people chose a canned sentence that says so (``is_precanned``); others
    were found to be spam (``is_rejected``). Pictures that have no other caption are left out and counted.

    Args:
        annotations: The JSON file, such as ``val.json``.
        images: Folder that its ``file_name`` entries are relative to.
        name: Short name for logs.
        limit: Keep the first pictures only.

    Example:
        >>> VizwizSource("annotations/val.json", "val").name
        'vizwiz'
    """

    def __init__(self, annotations: str, images: str, name: str = "vizwiz", limit: int | None = None) -> None:
        super().__init__(annotations, images, name, limit)

    def reject(self, annotation: dict[str, Any]) -> str:
        """Leave out what was rejected, and the canned sentence.

        Raises:
            KeyError: If the annotation does not say whether it is.
        """
        if annotation["is_rejected"]:
            return "rejected captions"
        return "canned captions" if annotation["is_precanned"] else ""
