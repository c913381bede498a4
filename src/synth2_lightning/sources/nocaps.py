"""NoCaps (Agrawal et al., arXiv 1812.08658): images of Open Images in domains by their overlap with COCO's classes."""

from synth2_lightning.sources.coco import CocoSource

_DOMAINS = ("in-domain", "near-domain", "out-domain")


class NocapsSource(CocoSource):
    """Image source of NoCaps; the key is ``DOMAIN/ID``, so that scores can be computed per domain.

    Args:
        annotations: Path or URL of the JSON file, ``nocaps_val_4500_captions.json``.
        images: Folder that its ``file_name`` entries are relative to.
        domain: ``"in-domain"``, ``"near-domain"`` or ``"out-domain"``; ``None`` reads all domains.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.

    Raises:
        ValueError: If the domain is unknown.
    """

    is_evaluation = True

    def __init__(
        self, annotations: str, images: str, domain: str | None = None, name: str = "nocaps", limit: int | None = None
    ) -> None:
        super().__init__(annotations, images, name, limit)
        if domain is not None and domain not in _DOMAINS:
            raise ValueError(
                f"NoCaps has no domain {domain!r}; expected one of {', '.join(_DOMAINS)}, or null for all."
            )
        self.domain = domain

    def name_image(self, image: dict[str, object]) -> str | None:
        """Return domain and id; ``None`` for images of other domains.

        Raises:
            ValueError: If the file has no domains, as that of the test split.
        """
        domain = image.get("domain")
        if domain not in _DOMAINS:
            raise ValueError(
                f"{self.annotations} has the domain {domain!r} for image {image['id']}; expected one of "
                f"{', '.join(_DOMAINS)}. Use the validation file, nocaps_val_4500_captions.json, which has domains."
            )
        return f"{domain}/{image['id']}" if self.domain in (None, domain) else None
