"""The image towers of open_clip (CLIP, SigLIP, MobileCLIP, ...), read out at their patches before pooling."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.encoders.frozen import RGB, FrozenEncoder, Preprocessing
from synth2_lightning.locations import resolve


class OpenClipEncoder(FrozenEncoder):
    """The image tower of an open_clip model as frozen encoder; class tokens are left out, the text tower is dropped.

    The last block comes after the tower's final normalisation, where that applies to patches; inner blocks come as
    they are. The statistics are those of the pretrained tag; for a local file those that all tags of its
    architecture agree on, else open_clip's defaults.

    Args:
        model: An architecture of open_clip, such as ``"ViT-B-16-SigLIP"``.
        pretrained: A tag of that architecture, such as ``"webli"``, or the location of a local file
            (``.safetensors``, or ``.pt`` that holds tensors alone). There are no random weights by accident.
        layer: Which block (or stage, of a convolutional tower), from the end where negative.
        image_size: Height and width in pixels; the architecture's own where left out.
        mean: Channel means of values in [0, 1], where the tag's do not hold.
        std: Channel deviations, where the tag's do not hold.
        interpolation: How pictures of another size are resized, where the tag's does not hold.
        resize_mode: How pictures that are not square are framed, where the tag's does not hold.

    Raises:
        ValueError: If open_clip has no such architecture, or the tower has no such layer.

    Example:
        >>> encoder = OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k")  # no weights yet
        >>> encoder.name, encoder.num_tokens, encoder.embed_dim
        ('ViT-B-32/laion2b_s34b_b79k/11@224', 49, 768)
    """

    def __init__(
        self,
        model: str,
        pretrained: str,
        layer: int = -1,
        image_size: int | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
        interpolation: Literal["bilinear", "bicubic"] | None = None,
        resize_mode: Literal["shortest", "squash"] | None = None,
    ) -> None:
        if model not in open_clip.list_models():
            raise ValueError(
                f"open_clip {open_clip.__version__} has no architecture {model!r}; expected one of "
                "open_clip.list_models(), such as 'ViT-B-16' or 'ViT-B-16-SigLIP'."
            )
        self._model = model
        self._pretrained = pretrained
        with torch.device("meta"), _quiet():
            blueprint = open_clip.create_model(
                model, load_weights=False, pretrained_text=False, force_image_size=image_size, device="meta"
            ).visual.eval()
        config = {**blueprint.preprocess_cfg, **self._tag_statistics()}
        preprocessing = Preprocessing(
            image_size=_side(blueprint.image_size),
            mean=mean or tuple(config["mean"]),
            std=std or tuple(config["std"]),
            interpolation=interpolation or config["interpolation"],
            resize_mode=resize_mode or config["resize_mode"],
        )
        num_layers = _count_layers(blueprint, preprocessing.image_size)
        if not -num_layers <= layer < num_layers:
            raise ValueError(f"{model!r} has no layer {layer}; expected {-num_layers} to {num_layers - 1}.")
        self._layer = layer % num_layers
        # Where attention pools the patches (CoCa), the final normalisation belongs to what was pooled.
        self._normalize = self._layer == num_layers - 1 and getattr(blueprint, "attn_pool", None) is None
        name = f"{model}/{Path(pretrained).stem}/{self._layer}@{preprocessing.image_size}"
        super().__init__(name, preprocessing, blueprint)

    def build_network(self) -> nn.Module:
        """Build the image tower with its weights.

        Raises:
            FileNotFoundError: If ``pretrained`` is neither a tag nor a location.
            OSError: If the weights cannot be had or do not fit.
        """
        tags = open_clip.list_pretrained_tags_by_model(self._model)
        source = self._pretrained
        if source not in tags:
            try:
                source = str(resolve(source, f"file of weights for {self._model}"))
            except FileNotFoundError as error:
                known = ", ".join(tags) or "none"
                raise FileNotFoundError(f"{error} It is no pretrained tag of {self._model} either: {known}.") from error
        try:
            model = open_clip.create_model(
                self._model, pretrained=source, pretrained_text=False, force_image_size=self.image_size
            )
        except Exception as error:  # open_clip and the Hub client raise errors of many families
            reason = " ".join(str(error).split())[:300]
            raise OSError(
                f"The weights {self._pretrained!r} of open_clip's {self._model!r} could not be loaded: {reason}. "
                "Expected a tag that can be downloaded, or a local state dict of this architecture; without a network, "
                "copy the file here and give its path as `pretrained`."
            ) from error
        return cast(nn.Module, model.visual)

    def feature_map(
        self, network: nn.Module, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Run the tower up to the layer."""
        return _intermediates(network, images, [self._layer], self._normalize)[0]

    def _tag_statistics(self) -> Mapping[str, Any]:
        tags = open_clip.list_pretrained_tags_by_model(self._model)
        known = {tag: _statistics(open_clip.get_pretrained_cfg(self._model, tag)) for tag in tags}
        if self._pretrained in known:
            return known[self._pretrained]
        agreed = list(known.values())
        return agreed[0] if agreed and all(config == agreed[0] for config in agreed) else {}


def _statistics(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("mean", "std", "interpolation", "resize_mode") if name in config}


def _intermediates(network: nn.Module, images: Tensor, layers: list[int] | None, normalize: bool) -> list[Tensor]:
    output = network.forward_intermediates(  # type: ignore[operator]
        images, indices=layers, normalize_intermediates=normalize, stop_early=True, intermediates_only=True
    )
    return cast(list[Tensor], output["image_intermediates"])


def _count_layers(blueprint: nn.Module, image_size: int) -> int:
    with torch.device("meta"):
        return len(_intermediates(blueprint, torch.zeros(1, 3, image_size, image_size), None, normalize=False))


def _side(image_size: int | tuple[int, int]) -> int:
    return image_size if isinstance(image_size, int) else image_size[0]


@contextmanager
def _quiet() -> Iterator[None]:
    # open_clip warns that a network without weights is random; here that is meant, and it never sees a picture.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
