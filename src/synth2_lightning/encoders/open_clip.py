"""open_clip models (CLIP, SigLIP, ...): patch embeddings of the image tower, and joint image-text embeddings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms.v2 import functional as vision

from synth2_lightning.encoders.frozen import RGB, FrozenEncoder, Preprocessing
from synth2_lightning.interfaces import ImageTextEncoder
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.io.locations import check_hub_name, resolve
from synth2_lightning.io.log_filters import without_messages
from synth2_lightning.io.messages import one_line
from synth2_lightning.types import Pixels

_STATISTICS = ("mean", "std", "interpolation", "resize_mode")


@runtime_checkable
class ImageTower(Protocol):
    """What open_clip's image towers have in common."""

    forward_intermediates: Callable[..., dict[str, list[Tensor]]]


@runtime_checkable
class DualEncoder(Protocol):
    """What open_clip's models have in common."""

    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[Tensor], Tensor]
    parameters: Callable[[], Iterator[nn.Parameter]]


class OpenClipEncoder(FrozenEncoder[ImageTower]):
    """Patch embeddings of an open_clip image tower, without class tokens; the text tower is discarded.

    The last block includes the tower's final normalization where that applies to patches; inner blocks do not.
    Preprocessing defaults to the pretrained tag's; for a local file, to the values that all tags of its architecture
    share, else to open_clip's defaults.

    Args:
        model: open_clip architecture, such as ``"ViT-B-16-SigLIP"``.
        pretrained: Pretrained tag of that architecture, such as ``"webli"``, or location of a local file
            (``.safetensors``, or ``.pt`` that contains only tensors).
        layer: Index of the block (or stage of a convolutional tower); negative indices count from the end.
        image_size: Height and width in pixels; the architecture's by default.
        mean: Channel means of values in [0, 1]; the tag's by default.
        std: Channel standard deviations; the tag's by default.
        interpolation: Interpolation for resizing; the tag's by default.
        resize_mode: Treatment of non-square images, see :class:`~synth2_lightning.encoders.frozen.Preprocessing`; the
            tag's by default.

    Raises:
        ValueError: If ``model`` is not an open_clip architecture, or ``layer`` is out of range.

    Example:
        >>> encoder = OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k")  # weights not read yet
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
        _check_architecture(model)
        self._model = model
        self._pretrained = pretrained
        with torch.device("meta"), without_messages(None, "No pretrained weights loaded for model"):
            blueprint = open_clip.create_model(
                model, load_weights=False, pretrained_text=False, force_image_size=image_size, device="meta"
            ).visual.eval()
        own = _read_preprocessing(blueprint, model, pretrained)
        preprocessing = Preprocessing(
            image_size=own.image_size,
            mean=mean or own.mean,
            std=std or own.std,
            interpolation=interpolation or own.interpolation,
            resize_mode=resize_mode or own.resize_mode,
        )
        with torch.device("meta"):
            image = torch.zeros(1, 3, preprocessing.image_size, preprocessing.image_size)
            num_layers = len(_intermediates(blueprint, image, None, normalize=False))
        if not -num_layers <= layer < num_layers:
            raise ValueError(f"{model!r} has no layer {layer}; expected {-num_layers} to {num_layers - 1}.")
        self._layer = layer % num_layers
        # With attention pooling (CoCa), the final normalization applies to the pooled output only.
        self._normalize = self._layer == num_layers - 1 and getattr(blueprint, "attn_pool", None) is None
        changes = preprocessing.fingerprint(own)
        name = f"{model}/{Path(pretrained).stem}/{self._layer}@{preprocessing.image_size}{changes}"
        super().__init__(name, preprocessing, blueprint)

    def build_network(self) -> ImageTower:
        """Return the image tower with its weights.

        Raises:
            FileNotFoundError: If ``pretrained`` is neither a tag nor an existing file.
            OSError: If the weights cannot be read or do not match the architecture.
        """
        tower: ImageTower = _load_model(self._model, self._pretrained, self.image_size).visual
        return tower

    def feature_map(
        self, network: ImageTower, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Return the features of ``layer``."""
        return _intermediates(network, images, [self._layer], self._normalize)[0]


class OpenClipImageTextEncoder(ImageTextEncoder):
    """Joint image-text embeddings by both towers of an open_clip model, of unit length.

    Args:
        model: open_clip architecture.
        pretrained: Pretrained tag or location of a local file, as for :class:`OpenClipEncoder`; it also selects the
            preprocessing.

    Raises:
        ValueError: If ``model`` is not an open_clip architecture.
    """

    def __init__(self, model: str, pretrained: str) -> None:
        super().__init__()
        _check_architecture(model)
        self.model = model
        self.pretrained = pretrained
        self.network: DualEncoder | None = None

    def _load(self) -> None:
        network = _load_model(self.model, self.pretrained)
        self._preprocessing = _read_preprocessing(network.visual, self.model, self.pretrained)
        self._tokenizer = open_clip.get_tokenizer(self.model)
        self.network = network
        self._fingerprint = fingerprint_weights("open_clip", self)

    def provenance(self) -> dict[str, Any]:
        """Return the model's name and a fingerprint of its weights."""
        return {"model": self.model, "pretrained": Path(self.pretrained).stem, "weights": self._fingerprint}

    @torch.no_grad()
    def embed_images(self, pixels: Pixels) -> Float[Tensor, "batch dim"]:
        """Embed images of any height and width on the network's device."""
        network = self._loaded()
        weight = next(network.parameters())
        framed = self._preprocessing.frame(pixels.values.to(weight.device))
        images = vision.normalize(framed.float() / 255, list(self._preprocessing.mean), list(self._preprocessing.std))
        return normalize(network.encode_image(images.to(weight.dtype)).float(), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embed texts on the network's device; texts are truncated to the context length."""
        network = self._loaded()
        ids = self._tokenizer(list(texts)).to(next(network.parameters()).device)
        return normalize(network.encode_text(ids).float(), dim=1)

    def _loaded(self) -> DualEncoder:
        if self.network is None:
            raise RuntimeError(f"The weights of encoder {self.model!r} are not loaded; call load() first.")
        return self.network


def _check_architecture(model: str) -> None:
    if model not in open_clip.list_models():
        raise ValueError(
            f"open_clip {open_clip.__version__} has no architecture {model!r}; expected one of "
            "open_clip.list_models(), such as 'ViT-B-16' or 'ViT-B-16-SigLIP'."
        )
    text_tower = (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    if hub_name := text_tower.get("hf_model_name"):  # open_clip downloads this model's configuration
        check_hub_name(hub_name)


def _load_model(model: str, pretrained: str, image_size: int | None = None) -> Any:
    tags = open_clip.list_pretrained_tags_by_model(model)
    source = pretrained
    # OpenAI's weights were trained with QuickGELU; by default open_clip warns and uses the architecture's GELU.
    quick_gelu = source in tags and open_clip.get_pretrained_cfg(model, source).get("quick_gelu", False)
    if source in tags:
        check_hub_name(source)
    else:
        try:
            source = str(resolve(source, f"weights of {model}"))
        except FileNotFoundError as error:
            known = ", ".join(tags) or "none"
            raise FileNotFoundError(f"{error} It is not a pretrained tag of {model} either: {known}.") from error
    try:
        return open_clip.create_model(
            model,
            pretrained=source,
            pretrained_text=False,
            force_image_size=image_size,
            force_quick_gelu=quick_gelu,
        )
    except Exception as error:  # open_clip and the Hub client have no common base class of errors
        reason = one_line(error)
        raise OSError(
            f"The weights {pretrained!r} of open_clip's {model!r} could not be loaded: {reason}. "
            "Expected a pretrained tag that can be downloaded, or a local state dict of this architecture. Without a "
            "network connection, pass the path of a local copy as `pretrained`."
        ) from error


def _read_preprocessing(tower: Any, model: str, pretrained: str) -> Preprocessing:
    config = {**tower.preprocess_cfg, **_tag_statistics(model, pretrained)}
    size = tower.image_size
    return Preprocessing(
        image_size=size if isinstance(size, int) else size[0],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
    )


def _tag_statistics(model: str, pretrained: str) -> Mapping[str, Any]:
    known: dict[str, dict[str, Any]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(model):
        config = open_clip.get_pretrained_cfg(model, tag)
        known[tag] = {name: config[name] for name in _STATISTICS if name in config}
    if pretrained in known:
        return known[pretrained]
    agreed = list(known.values())
    return agreed[0] if agreed and all(config == agreed[0] for config in agreed) else {}


def _intermediates(network: ImageTower, images: Tensor, layers: list[int] | None, normalize: bool) -> list[Tensor]:
    output = network.forward_intermediates(
        images, indices=layers, normalize_intermediates=normalize, stop_early=True, intermediates_only=True
    )
    return output["image_intermediates"]
