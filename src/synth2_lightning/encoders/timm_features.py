"""Feature maps of a timm network at several depths, for perceptual losses."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.encoders.timm import TimmNetwork, find_stage, make_blueprint, make_network, stage_names
from synth2_lightning.nn.perceptual import FeatureExtractor


class TimmFeatures(FeatureExtractor):
    """Frozen convolutional timm network; gradients flow to the images only.

    Images are not resized, so networks with a fixed input size, such as most transformers, are rejected.

    Args:
        model: See :class:`~synth2_lightning.encoders.timm.TimmEncoder`.
        weights: See :class:`~synth2_lightning.encoders.timm.TimmEncoder`.
        layers: Indices into the model's ``feature_info``; negative indices count from the end.

    Raises:
        ValueError: If ``model`` is unknown to timm or has a fixed input size, or a layer is out of range.

    Example:
        >>> features = TimmFeatures("tf_efficientnet_lite0")  # weights not read yet
        >>> features.stages
        ('blocks.0', 'blocks.1', 'blocks.2', 'blocks.4')
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: str, weights: str | None = None, layers: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        blueprint = make_blueprint(model)
        if not layers:
            raise ValueError(f"TimmFeatures got no layer of {model!r}; expected at least one index in `layers`.")
        if hasattr(blueprint, "set_input_size"):
            raise ValueError(
                f"TimmFeatures got {model!r}, which accepts images of one size only; expected a network without a "
                "fixed input size. Use a convolutional network, such as tf_efficientnet_lite0."
            )
        names = stage_names(blueprint)
        self._model = model
        self._weights = weights
        self._layers = sorted({find_stage(model, names, layer) for layer in layers})
        self.stages = tuple(names[layer] for layer in self._layers)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(blueprint.pretrained_cfg[name]).view(1, 3, 1, 1), persistent=False)
        self.network: TimmNetwork | None = None

    def _load(self) -> None:
        network = make_network(self._model, self._weights)
        network.prune_intermediate_layers(self._layers, prune_norm=True)
        self.network = network.to(self.mean.device, memory_format=torch.channels_last)

    def extract(self, images: Float[Tensor, "batch 3 height width"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return one feature map per layer."""
        if self.network is None:
            raise RuntimeError(f"The weights of {self._model!r} are not loaded; call load() first.")
        normalized = ((images + 1) / 2 - self.mean) / self.std
        return self.network.forward_intermediates(
            normalized.contiguous(memory_format=torch.channels_last),
            indices=self._layers,
            norm=False,
            stop_early=True,
            intermediates_only=True,
        )
