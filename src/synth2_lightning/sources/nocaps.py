"""NoCaps (Agrawal et al., arXiv 1812.08658): pictures of Open Images, by how far they are from what COCO shows."""

from typing import Any

from synth2_lightning.sources.coco import CocoSource

_DOMAINS = ("in-domain", "near-domain", "out-domain")


class NocapsSource(CocoSource):
    """NoCaps in its COCO-like file; the key is ``DOMAIN/ID``, so that scores can be told apart by domain.

    Args:
        annotations: The JSON file, ``nocaps_val_4500_captions.json``.
        images: Folder that its ``file_name`` entries are relative to.
        domain: Read one domain only: ``"in-domain"``, ``"near-domain"`` or ``"out-domain"``.
        name: Short name for logs.
        limit: Keep the first pictures only.

    Raises:
        ValueError: If there is no such domain.

    Example:
        >>> NocapsSource("nocaps_val_4500_captions.json", "nocaps", domain="out-domain").is_evaluation
        True
    """

    is_evaluation = True

    def __init__(
        self, annotations: str, images: str, domain: str | None = None, name: str = "nocaps", limit: int | None = None
    ) -> None:
        super().__init__(annotations, images, name, limit)
        if domain is not None and domain not in _DOMAINS:
            raise ValueError(
                f"NoCaps has no domain {domain!r}; expected one of {', '.join(_DOMAINS)}, or none for all."
            )
        self.domain = domain

    def name_image(self, image: dict[str, Any]) -> str | None:
        """Give domain and id.

        Raises:
            ValueError: If the file does not say the domain: that of the test split does not.
        """
        domain = image.get("domain")
        if domain not in _DOMAINS:
            raise ValueError(
                f"{self.annotations} says {domain!r} for the domain of image {image['id']}; expected one of "
                f"{', '.join(_DOMAINS)}. The validation file has them (nocaps_val_4500_captions.json)."
            )
        return f"{domain}/{image['id']}" if self.domain in (None, domain) else None
