"""Features of a timm network at several depths, for pictures to be compared by what they show."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.encoders.timm import find_stage, make_blueprint, make_network, stage_names
from synth2_lightning.interfaces import FeatureExtractor


class TimmFeatures(FeatureExtractor):
    """A convolutional network of timm, frozen; a gradient flows to the pictures, none to the network.

    Pictures come in at their own size, so that no detail is lost or made up: a network that takes pictures of one
    size alone, as most transformers do, is refused.

    Args:
        model: See :class:`~synth2_lightning.encoders.timm.TimmEncoder`.
        weights: See :class:`~synth2_lightning.encoders.timm.TimmEncoder`.
        layers: Indices into timm's ``feature_info`` of the model, from the end where negative.

    Raises:
        ValueError: If timm has no such model, the model has no such layer, or takes pictures of one size alone.

    Example:
        >>> features = TimmFeatures("tf_efficientnet_lite0")  # no weights yet
        >>> features.stages
        ('blocks.0', 'blocks.1', 'blocks.2', 'blocks.4')
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: str, weights: str | None = None, layers: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        blueprint = make_blueprint(model)
        if not layers:
            raise ValueError(f"TimmFeatures was asked for no layer of {model!r}; expected one or more.")
        if hasattr(blueprint, "set_input_size"):
            raise ValueError(
                f"TimmFeatures was given {model!r}, which takes pictures of one size alone; expected a network that "
                "takes pictures as they are. Use a convolutional one, such as tf_efficientnet_lite0."
            )
        names = stage_names(blueprint)
        self._model = model
        self._weights = weights
        self._layers = sorted({find_stage(model, names, layer) for layer in layers})
        self.stages = tuple(names[layer] for layer in self._layers)
        statistics = cast(dict[str, tuple[float, float, float]], blueprint.pretrained_cfg)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(statistics[name]).view(1, 3, 1, 1), persistent=False)
        self.network: nn.Module | None = None

    def load(self) -> None:
        """Bring the weights; the second call does nothing.

        Raises:
            OSError: If they cannot be had.
            ValueError: If they are another network's.
        """
        if self.network is None:
            network = make_network(self._model, self._weights).requires_grad_(False).eval()
            network.prune_intermediate_layers(self._layers, prune_norm=True)  # type: ignore[operator]
            self.network = network.to(self.mean.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> "TimmFeatures":
        """Stay in evaluation mode: batch statistics of a frozen network must not move."""
        del mode
        return super().train(False)

    def extract(self, images: Float[Tensor, "batch 3 height width"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Run the network up to its deepest wanted layer.

        Raises:
            RuntimeError: If ``load()`` was not called.
        """
        if self.network is None:
            raise RuntimeError(f"The features of {self._model!r} have no weights yet; call load() first.")
        normalised = ((images + 1) / 2 - self.mean) / self.std
        return cast(
            list[Tensor],
            self.network.forward_intermediates(  # type: ignore[operator]
                normalised.contiguous(memory_format=torch.channels_last),
                indices=self._layers, norm=False, stop_early=True, intermediates_only=True,
            ),
        )  # fmt: skip
