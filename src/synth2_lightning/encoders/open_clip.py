"""Models of open_clip (CLIP, SigLIP, ...): image towers read out at their patches, and both towers to compare."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms.v2 import functional as vision

from synth2_lightning.encoders.frozen import RGB, FrozenEncoder, Preprocessing
from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.interfaces import ImageTextEncoder, ImageTokenizer, PairScorer
from synth2_lightning.locations import check_hub_name, resolve
from synth2_lightning.types import Pixels, VQTokens


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
        _check_architecture(model)
        self._model = model
        self._pretrained = pretrained
        with torch.device("meta"), _quiet():
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
        return cast(nn.Module, _load_model(self._model, self._pretrained, self.image_size).visual)

    def feature_map(
        self, network: nn.Module, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Run the tower up to the layer."""
        return _intermediates(network, images, [self._layer], self._normalize)[0]


class OpenClipImageTextEncoder(ImageTextEncoder):
    """Both towers of an open_clip model: pictures and texts in one space.

    The statistics of pictures are those of the pretrained tag, as for :class:`OpenClipEncoder`.

    Args:
        model: An architecture of open_clip.
        pretrained: A tag of that architecture, or the location of a local file, as for :class:`OpenClipEncoder`.

    Raises:
        ValueError: If open_clip has no such architecture.

    Example:
        >>> OpenClipImageTextEncoder("ViT-B-32", "openai").model  # no weights yet
        'ViT-B-32'
    """

    def __init__(self, model: str, pretrained: str) -> None:
        super().__init__()
        _check_architecture(model)
        self.model = model
        self.pretrained = pretrained
        self.network: nn.Module | None = None

    def load(self) -> None:
        """Bring the weights; the second call does nothing.

        Raises:
            FileNotFoundError: If ``pretrained`` is neither a tag nor a location.
            OSError: If the weights, or the words of the text tower, cannot be had.
        """
        if self.network is not None:
            return
        network = _load_model(self.model, self.pretrained)
        self._preprocessing = _read_preprocessing(network.visual, self.model, self.pretrained)
        self._split_words = open_clip.get_tokenizer(self.model)
        self.network = network.requires_grad_(False).eval()
        self._fingerprint = fingerprint_weights("open_clip", self)

    def train(self, mode: bool = True) -> "OpenClipImageTextEncoder":
        """Stay in evaluation mode: dropout and batch statistics of a frozen network must not move."""
        del mode
        return super().train(False)

    def provenance(self) -> dict[str, Any]:
        """Give the model's name, and a fingerprint of its weights."""
        return {"model": self.model, "pretrained": Path(self.pretrained).stem, "weights": self._fingerprint}

    @torch.no_grad()
    def embed_images(self, pixels: Pixels) -> Float[Tensor, "batch dim"]:
        """Embed pictures of any height and width, on the network's device.

        Raises:
            RuntimeError: If ``load()`` was not called.
        """
        network = self._loaded("pictures")
        weight = next(network.parameters())
        framed = self._preprocessing.frame(pixels.values.to(weight.device))
        images = vision.normalize(framed.float() / 255, list(self._preprocessing.mean), list(self._preprocessing.std))
        return normalize(network.encode_image(images.to(weight.dtype)).float(), dim=1)  # type: ignore[operator]

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embed texts, on the network's device; words beyond the network's context are cut off.

        Raises:
            RuntimeError: If ``load()`` was not called.
        """
        network = self._loaded("texts")
        words = self._split_words(list(texts)).to(next(network.parameters()).device)
        return normalize(network.encode_text(words).float(), dim=1)  # type: ignore[operator]

    def _loaded(self, what: str) -> nn.Module:
        if self.network is None:
            raise RuntimeError(f"The encoder {self.model!r} has no weights yet; call load() before embedding {what}.")
        return self.network


class OpenClipScorer(PairScorer):
    """Scores a pair by the cosine of picture and caption under both towers of an open_clip model, from -1 to 1.

    The picture is what the tokenizer decodes the tokens to (CLIPScore, arXiv 2104.08718, without its factor).

    Args:
        tokenizer: Decodes the tokens; its codebook is theirs.
        model: An architecture of open_clip.
        pretrained: A tag of that architecture, or the location of a local file, as for :class:`OpenClipEncoder`.

    Raises:
        ValueError: If open_clip has no such architecture.

    Example:
        >>> from synth2_lightning.encoders.vqgan import VQGANTokenizer
        >>> tokenizer = VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
        >>> OpenClipScorer(tokenizer, "ViT-B-32", "laion2b_s34b_b79k").model  # no weights yet
        'ViT-B-32'
    """

    def __init__(self, tokenizer: ImageTokenizer, model: str, pretrained: str) -> None:
        super().__init__()
        self.encoder = OpenClipImageTextEncoder(model, pretrained)
        self.tokenizer = tokenizer
        self.model = model
        self.pretrained = pretrained
        self._fingerprint: str | None = None

    def load(self) -> None:
        """Bring the weights of tokenizer and model; the second call does nothing.

        Raises:
            FileNotFoundError: If ``pretrained`` is neither a tag nor a location.
            OSError: If the weights, or the words of the text tower, cannot be had.
        """
        if self._fingerprint is not None:
            return
        self.tokenizer.load()
        self.encoder.load()
        # Of the networks under the names that the fingerprints in shards were taken of.
        networks = nn.ModuleDict({"tokenizer": self.tokenizer, "network": cast(nn.Module, self.encoder.network)})
        self._fingerprint = fingerprint_weights("open_clip", networks)

    def provenance(self) -> dict[str, Any]:
        """Give the model's name, and a fingerprint of all weights, those that decode the tokens included."""
        return {"model": self.model, "pretrained": Path(self.pretrained).stem, "weights": self._fingerprint}

    @torch.no_grad()
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Score each caption beside its picture.

        Raises:
            RuntimeError: If ``load()`` was not called.
            TypeError: If the tokenizer cannot decode.
            ValueError: If the tokens speak another codebook.
        """
        if self._fingerprint is None:
            raise RuntimeError(f"The scorer {self.model!r} has no weights yet; call load() before scoring pairs.")
        pictures = self.encoder.embed_images(self.tokenizer.detokenize(tokens))
        return (pictures * self.encoder.embed_texts(captions)).sum(1)


def _check_architecture(model: str) -> None:
    if model not in open_clip.list_models():
        raise ValueError(
            f"open_clip {open_clip.__version__} has no architecture {model!r}; expected one of "
            "open_clip.list_models(), such as 'ViT-B-16' or 'ViT-B-16-SigLIP'."
        )
    text_tower = (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    if hub_name := text_tower.get("hf_model_name"):  # open_clip reads its configuration from there
        check_hub_name(hub_name)


def _load_model(model: str, pretrained: str, image_size: int | None = None) -> Any:
    tags = open_clip.list_pretrained_tags_by_model(model)
    source = pretrained
    # OpenAI's weights were trained with QuickGELU; open_clip warns of the architecture's GELU and takes it.
    quick_gelu = source in tags and open_clip.get_pretrained_cfg(model, source).get("quick_gelu", False)
    if source in tags:
        check_hub_name(source)
    else:
        try:
            source = str(resolve(source, f"file of weights for {model}"))
        except FileNotFoundError as error:
            known = ", ".join(tags) or "none"
            raise FileNotFoundError(f"{error} It is no pretrained tag of {model} either: {known}.") from error
    try:
        return open_clip.create_model(
            model,
            pretrained=source,
            pretrained_text=False,
            force_image_size=image_size,
            force_quick_gelu=quick_gelu,
        )
    except Exception as error:  # open_clip and the Hub client raise errors of many families
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"The weights {pretrained!r} of open_clip's {model!r} could not be loaded: {reason}. "
            "Expected a tag that can be downloaded, or a local state dict of this architecture; without a network, "
            "copy the file here and give its path as `pretrained`."
        ) from error


def _read_preprocessing(tower: Any, model: str, pretrained: str) -> Preprocessing:
    config = {**tower.preprocess_cfg, **_tag_statistics(model, pretrained)}
    return Preprocessing(
        image_size=_side(tower.image_size),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
    )


def _tag_statistics(model: str, pretrained: str) -> Mapping[str, Any]:
    tags = open_clip.list_pretrained_tags_by_model(model)
    known = {tag: _statistics(open_clip.get_pretrained_cfg(model, tag)) for tag in tags}
    if pretrained in known:
        return known[pretrained]
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
