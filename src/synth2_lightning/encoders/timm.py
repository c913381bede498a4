"""Image encoders from timm: the feature map before pooling."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import timm
import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from synth2_lightning.encoders.frozen import RGB, FrozenEncoder, Preprocessing
from synth2_lightning.io.checkpoint_files import plain_values_only
from synth2_lightning.io.locations import check_hub_name, resolve


@runtime_checkable
class TimmNetwork(Protocol):
    """What timm's networks with intermediate feature maps have in common."""

    pretrained_cfg: Mapping[str, object]
    feature_info: Sequence[Mapping[str, object]]
    forward_intermediates: Callable[..., list[Tensor]]
    prune_intermediate_layers: Callable[..., object]
    to: Callable[..., "TimmNetwork"]


class TimmEncoder(FrozenEncoder[TimmNetwork]):
    """Frozen timm network: patch tokens of a transformer, or the feature map of a convolutional network.

    Class and register tokens are dropped. The last block includes the network's final normalization, if any; inner
    blocks do not.

    Args:
        model: timm model name, with the pretrained tag for weights from the Hub, such as
            ``"vit_base_patch14_reg4_dinov2.lvd142m"``.
        weights: Location of a local state dict (``.safetensors``, or ``.pth`` that contains only tensors) instead of
            the Hub's weights. Tensors with another library's names are matched by order.
        layer: Index into the model's ``feature_info`` (a transformer block or a convolutional stage); negative indices
            count from the end.
        image_size: Height and width in pixels; the model's by default.
        mean: Channel means of values in [0, 1]; the model's by default.
        std: Channel standard deviations; the model's by default.
        interpolation: Interpolation for resizing; the model's by default.

    Raises:
        ValueError: If ``model`` is unknown to timm, or ``layer`` is out of range.

    Example:
        >>> encoder = TimmEncoder("tf_efficientnet_lite0")  # weights not read yet
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
        own = Preprocessing(config["input_size"][-1], config["mean"], config["std"], config["interpolation"])
        preprocessing = Preprocessing(
            image_size=image_size or own.image_size,
            mean=mean or own.mean,
            std=std or own.std,
            interpolation=interpolation or own.interpolation,
        )
        origin = f"{model}/{Path(weights).stem}" if weights else model
        name = f"{origin}/{stages[self._layer]}@{preprocessing.image_size}{preprocessing.fingerprint(own)}"
        super().__init__(name, preprocessing, _resized(blueprint, preprocessing.image_size))

    def build_network(self) -> TimmNetwork:
        """Return the network with its weights, without the layers after ``layer``.

        Raises:
            OSError: If the Hub's weights cannot be read.
        """
        network = _resized(make_network(self._model, self._weights), self.image_size)
        network.prune_intermediate_layers([self._layer], prune_norm=not self._is_last)
        return network

    def feature_map(
        self, network: TimmNetwork, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Return the features of ``layer``."""
        (features,) = network.forward_intermediates(
            images, indices=[self._layer], norm=self._is_last, stop_early=True, intermediates_only=True
        )
        return features


def make_blueprint(model: str) -> TimmNetwork:
    """Return a network on torch's ``meta`` device, for its shapes and configuration.

    Raises:
        ValueError: If ``model`` is unknown to timm.
    """
    if not timm.is_model(model.partition(".")[0]):
        raise ValueError(
            f"timm {timm.__version__} has no image network {model!r}; expected one of "
            "timm.list_models(), with or without a tag of timm.list_pretrained() after a dot."
        )
    with torch.device("meta"):
        network: TimmNetwork = timm.create_model(model, pretrained=False)
        return network


def stage_names(network: TimmNetwork) -> list[str]:
    """Return the module names of the feature maps in timm's ``feature_info``."""
    return [str(stage["module"]) for stage in network.feature_info]


def find_stage(model: str, stages: Sequence[str], layer: int) -> int:
    """Return the non-negative index of a layer; negative indices count from the end.

    Raises:
        ValueError: If the index is out of range.
    """
    if not -len(stages) <= layer < len(stages):
        raise ValueError(
            f"{model!r} has no layer {layer}; expected {-len(stages)} to {len(stages) - 1}, the indices of "
            f"{', '.join(stages)}."
        )
    return layer % len(stages)


def make_network(model: str, weights: str | None) -> TimmNetwork:
    """Return a network with the weights of a local state dict, or of the Hub if ``weights`` is None.

    Raises:
        OSError: If the weights cannot be read.
        ValueError: If the state dict does not match the network.
    """
    if weights is not None:
        blank = timm.create_model(model, pretrained=False)
        path = resolve(weights, f"state dict of {model}")
        with plain_values_only(path):
            state = load_state_dict(str(path), device="cpu", weights_only=True)
        match_state_dict(blank, state, path)
        local: TimmNetwork = blank
        return local
    check_hub_name(model)
    try:
        network: TimmNetwork = timm.create_model(model, pretrained=True)
    except Exception as error:  # the Hub client's errors have no common base class
        raise OSError(
            f"The weights of timm's {model!r} could not be read: {error}. Without a network connection, pass a local "
            "state dict as `weights`, such as weights://efficientnet-lite0/efficientnet-lite0-57934424.pth for "
            "tf_efficientnet_lite0."
        ) from error
    return network


def match_state_dict(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict by name, or by order if no name matches.

    Matching by order requires that every pair has the same shape and the same last name component (``weight``,
    ``running_mean``).

    Args:
        network: Network that receives the weights.
        state: Tensors by name.
        path: File of the state dict, for error messages.

    Raises:
        ValueError: If the tensors match neither by name nor by order.
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
            fact = f"found {other!r} {tuple(given[other].shape)} in place of {name!r} {tuple(own[name].shape)}"
            raise ValueError(_misfit(network, path, fact, set()))
    network.load_state_dict({name: given[other] for name, other in pairs.items()}, strict=False)


def _misfit(network: nn.Module, path: Path, fact: str, unmatched: set[str]) -> str:
    examples = f" (unmatched names: {', '.join(sorted(unmatched)[:4])})" if unmatched else ""
    return (
        f"The state dict {path} does not match {type(network).__name__}: {fact}{examples}. Expected the names of "
        "timm's network, or all its tensors in the same order. Set `model` to the timm model of the file."
    )


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Not every library saves the step counters of batch normalization, and evaluation does not use them.
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _resized(network: TimmNetwork, image_size: int) -> TimmNetwork:
    # Convolutional networks accept any size and lack this method.
    if callable(resize := getattr(network, "set_input_size", None)):
        resize(image_size)
    return network
