"""Any image network of timm, read out at its grid of features before pooling."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import timm
import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from synth2_lightning.encoders.frozen import RGB, FrozenEncoder, Preprocessing
from synth2_lightning.locations import check_hub_name, resolve
from synth2_lightning.weight_files import plain_values_only


class TimmEncoder(FrozenEncoder):
    """A timm network as frozen encoder: patch tokens of a transformer, or a feature map of a convolutional network.

    Class and register tokens are left out. The last block comes after the network's final normalisation, where it
    has one; inner blocks come as they are.

    Args:
        model: A model of timm, with its tag of weights where they come from the Hub, such as
            ``"vit_base_patch14_reg4_dinov2.lvd142m"``.
        weights: Location of a local state dict (``.safetensors``, or ``.pth`` that holds tensors alone) instead of
            the Hub's weights. Where the names are another library's, the tensors are paired in order.
        layer: Index into timm's ``feature_info`` of the model, from the end where negative: a block of a
            transformer, a stage of a convolutional network.
        image_size: Height and width in pixels; the model's own where left out.
        mean: Channel means of values in [0, 1]; the model's own where left out.
        std: Channel deviations; the model's own where left out.
        interpolation: How pictures of another size are resized; the model's own where left out.

    Raises:
        ValueError: If timm has no such model, or the model has no such layer.

    Example:
        >>> encoder = TimmEncoder("tf_efficientnet_lite0")  # no weights yet
        >>> encoder.name, encoder.num_tokens, encoder.embed_dim
        ('tf_efficientnet_lite0/blocks.6@224', 49, 320)
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        layer: int = -1,
        image_size: int | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
        interpolation: Literal["bilinear", "bicubic"] | None = None,
    ) -> None:
        blueprint = make_blueprint(model)
        config = resolve_model_data_config(blueprint)
        stages = stage_names(blueprint)
        self._model = model
        self._weights = weights
        self._layer = find_stage(model, stages, layer)
        self._is_last = self._layer == len(stages) - 1
        preprocessing = Preprocessing(
            image_size=image_size or config["input_size"][-1],
            mean=mean or config["mean"],
            std=std or config["std"],
            interpolation=interpolation or config["interpolation"],
        )
        origin = f"{model}/{Path(weights).stem}" if weights else model
        name = f"{origin}/{stages[self._layer]}@{preprocessing.image_size}"
        super().__init__(name, preprocessing, _resized(blueprint, preprocessing.image_size))

    def build_network(self) -> nn.Module:
        """Build the network with its weights, without what comes after the layer.

        Raises:
            OSError: If the Hub's weights cannot be had.
        """
        network = _resized(make_network(self._model, self._weights), self.image_size)
        network.prune_intermediate_layers([self._layer], prune_norm=not self._is_last)  # type: ignore[operator]
        return network

    def feature_map(
        self, network: nn.Module, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Run the network up to the layer."""
        (features,) = network.forward_intermediates(  # type: ignore[operator]
            images, indices=[self._layer], norm=self._is_last, stop_early=True, intermediates_only=True
        )
        return cast(Tensor, features)


def make_blueprint(model: str) -> nn.Module:
    """Build a network without data or weights (on torch's ``meta`` device), to ask it for widths.

    Raises:
        ValueError: If timm has no such model.
    """
    if not timm.is_model(model.partition(".")[0]):
        raise ValueError(
            f"timm {timm.__version__} has no image network {model!r}; expected one of "
            "timm.list_models(), with or without a tag of timm.list_pretrained() after a dot."
        )
    with torch.device("meta"):
        return cast(nn.Module, timm.create_model(model, pretrained=False))


def stage_names(network: nn.Module) -> list[str]:
    """Names of the places where a network can be read out, from timm's ``feature_info``."""
    return [str(stage["module"]) for stage in network.feature_info]  # type: ignore[union-attr]


def find_stage(model: str, stages: Sequence[str], layer: int) -> int:
    """Turn an index that may count from the end into one from the beginning.

    Raises:
        ValueError: If there is no such layer.
    """
    if not -len(stages) <= layer < len(stages):
        raise ValueError(
            f"{model!r} has no layer {layer}; expected {-len(stages)} to {len(stages) - 1}, which stand for "
            f"{', '.join(stages)}."
        )
    return layer % len(stages)


def make_network(model: str, weights: str | None) -> nn.Module:
    """Build a network with its weights: those of a local state dict, or the Hub's where ``weights`` is None.

    Raises:
        OSError: If the weights cannot be had.
        ValueError: If the state dict is another network's.
    """
    if weights is not None:
        network = timm.create_model(model, pretrained=False)
        path = resolve(weights, f"state dict of {model}")
        with plain_values_only(path):
            state = load_state_dict(str(path), device="cpu", weights_only=True)
        match_state_dict(network, state, path)
        return cast(nn.Module, network)
    check_hub_name(model)
    try:
        return cast(nn.Module, timm.create_model(model, pretrained=True))
    except Exception as error:  # the Hub client raises errors of many families
        raise OSError(
            f"The weights of timm's {model!r} could not be had: {error}. Without a network, give a local state dict as "
            "`weights`, such as weights://efficientnet-lite0/efficientnet-lite0-57934424.pth for "
            "tf_efficientnet_lite0."
        ) from error


def match_state_dict(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict by name; or, where the names are another library's, by order.

    By order only if every pair has the same shape and ends in the same word (``weight``, ``running_mean``), so that
    nothing is loaded by luck.

    Args:
        network: Takes the weights.
        state: Tensors by name.
        path: Where they come from, for the message.

    Raises:
        ValueError: If they fit neither way.
    """
    own = _without_counters(network.state_dict())
    given = _without_counters(state)
    if set(own) == set(given):
        pairs = {name: name for name in own}
    elif set(own) & set(given) or len(own) != len(given):
        raise ValueError(_misfit(network, path, f"{len(given)} tensors against {len(own)}", set(own) ^ set(given)))
    else:
        pairs = dict(zip(own, given, strict=True))
    for name, other in pairs.items():
        if own[name].shape != given[other].shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            fact = f"{other!r} {tuple(given[other].shape)} stands where {name!r} {tuple(own[name].shape)} is expected"
            raise ValueError(_misfit(network, path, fact, set()))
    network.load_state_dict({name: given[other] for name, other in pairs.items()}, strict=False)


def _misfit(network: nn.Module, path: Path, fact: str, strangers: set[str]) -> str:
    examples = f" (only on one side: {', '.join(sorted(strangers)[:4])})" if strangers else ""
    return (
        f"The state dict {path} does not fit {type(network).__name__}: {fact}{examples}. Expected the names of timm's "
        "network, or all its tensors in the same order. Name the timm model that the file was saved from."
    )


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Batch normalisation counts its steps, some libraries save that and some do not, and evaluation never reads it.
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _resized(network: nn.Module, image_size: int) -> nn.Module:
    # Convolutional networks take any size and have no such method.
    if callable(resize := getattr(network, "set_input_size", None)):
        resize(image_size)
    return network
