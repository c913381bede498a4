"""Sources of a decoder's language model: pretrained weights, or a configuration with random ones."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.huggingface import NewNetwork, check_config, check_language_model, read_language_model
from synth2_lightning.io.locations import is_here, locate_model
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.precision import WeightType
from synth2_lightning.io.recorded_specs import Component


class LanguageModelSource(Component, ABC):
    """Provides the tokenizer and the configuration of a language model, and builds the model.

    Tokenizer and configuration are read at their first use, the weights only in :meth:`build`.
    """

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The fast tokenizer of transformers; captions end with its end-of-text token."""

    @property
    @abstractmethod
    def config(self) -> Any:
        """The configuration of transformers."""

    @abstractmethod
    def build(self) -> Any:
        """Return a causal language model of transformers; the parameters to be trained require gradients."""

    @property
    def hidden_size(self) -> int:
        """Width of the model's hidden states.

        Raises:
            ValueError: If the configuration is not that of a decoder-only language model.
        """
        check_config(self.config, getattr(self.config, "name_or_path", "") or "of a new network")
        return int(self.config.get_text_config().hidden_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank updates of frozen weights (LoRA, arXiv 2106.09685), by PEFT.

    Args:
        r: Rank of the updates.
        alpha: The updates are scaled by ``alpha / r``.
        dropout: Dropout probability of the updates' input.
        target_modules: Names of the linear layers to update; ``("all-linear",)`` is all but the output layer.

    Raises:
        ValueError: If a number is out of range; when the weights are read, if the model has no layer of a name.
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("all-linear",)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.r < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ValueError(
                f"{self} is out of range; expected r of 1 or more, alpha above 0, and dropout of 0 to below 1."
            )


class PretrainedLanguageModel(LanguageModelSource):
    """A causal language model with pretrained weights, frozen by default.

    Args:
        model: Name on the Hugging Face Hub, or a folder: a path, ``package://PACKAGE/PATH`` or ``weights://NAME``.
        gguf_file: Name of a GGUF file in it. Its weights are dequantized, because gradients cannot pass through
            quantized ones.
        dtype: Type of the frozen weights; ``"auto"`` is bfloat16 where the hardware computes it. Trained weights are
            float32: in half precision small steps, and those of a moving average, would be rounded to zero.
        trainable: Train all weights.
        lora: Train low-rank updates of the weights.
        attn_implementation: Attention kernel of transformers; ``None`` is the default of transformers. ``"eager"``
            is the fastest in bfloat16 on a CPU.

    Raises:
        ValueError: If both ``trainable`` and ``lora`` are given.

    Example:
        >>> PretrainedLanguageModel("HuggingFaceTB/SmolLM2-135M-Instruct", lora=LoraSettings(r=4)).trainable
        False
    """

    def __init__(
        self,
        model: str,
        gguf_file: str | None = None,
        dtype: WeightType = "float32",
        trainable: bool = False,
        lora: LoraSettings | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        if trainable and lora is not None:
            raise ValueError(
                "PretrainedLanguageModel got trainable=True and lora; expected at most one of them. trainable trains "
                "all weights; lora freezes them and trains low-rank updates."
            )
        self.model = model
        self.gguf_file = gguf_file
        self.dtype = dtype
        self.trainable = trainable
        self.lora = lora
        self.attn_implementation = attn_implementation

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer published with the weights."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._location, **self._reading)

    @cached_property
    def config(self) -> Any:
        """The configuration published with the weights."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self._location, **self._reading)

    def build(self) -> Any:
        """Read the weights; freeze or adapt them as set."""
        dtype: WeightType = "float32" if self.trainable else self.dtype
        model = read_language_model(self._location, self.gguf_file, dtype, self.attn_implementation)
        model.requires_grad_(self.trainable)
        if self.lora is not None:
            _add_lora(model, self.lora)
        return model

    @property
    def _location(self) -> str:
        return locate_model(self.model, "language model")

    @property
    def _reading(self) -> dict[str, Any]:
        local = is_here(self._location)
        return {"gguf_file": self.gguf_file, "trust_remote_code": False, "local_files_only": local}


class NewLanguageModel(LanguageModelSource):
    """A causal language model that is randomly initialized and trained jointly.

    Args:
        config: The configuration of a Hugging Face model, such as
            ``{"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4}``. Vocabulary size and special tokens are
            those of the tokenizer.
        tokenizer: Folder of the tokenizer, such as ``build_vocabulary`` writes, or its name on the Hub.

    Raises:
        ValueError: If ``config`` lacks ``model_type``, or a key that such a model does not have.

    Example:
        >>> vocabulary = "package://synth2_lightning/scenes/vocabulary"
        >>> NewLanguageModel({"model_type": "gpt2", "n_embd": 192}, vocabulary).hidden_size
        192
    """

    def __init__(self, config: dict[str, Any], tokenizer: str) -> None:
        self._plan = NewNetwork(config, tokenizer, "NewLanguageModel")

    @property
    def tokenizer(self) -> Any:
        """The given tokenizer."""
        return self._plan.tokenizer

    @property
    def config(self) -> Any:
        """The given configuration with the tokenizer's vocabulary."""
        return self._plan.config

    def build(self) -> Any:
        """Initialize the weights from torch's global random state."""
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_config(self.config)
        except Exception as error:  # each architecture has its own checks
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(
                f"No {self.config.model_type!r} model can be built from NewLanguageModel.config: {reason}. Expected "
                "consistent sizes; see the configuration class of transformers."
            ) from error
        check_language_model(model, "of a new network")
        return model


def _add_lora(model: Any, lora: LoraSettings) -> None:
    require_extra("peft", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(lora.target_modules)
    is_all = targets == ["all-linear"]
    if not is_all:
        _check_targets(model, targets)
    inject_adapter_in_model(
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear" if is_all else targets,
            task_type="CAUSAL_LM",
        ),
        model,
    )
    for parameter in model.parameters():
        if parameter.requires_grad:  # In half precision small steps would be rounded to zero.
            parameter.data = parameter.data.float()


def _check_targets(model: Any, targets: list[str]) -> None:
    # PEFT leaves out a name that it does not find, if it finds another one.
    layers = {f".{name}": getattr(part, "weight", None) for name, part in model.named_modules()}
    unknown = [target for target in targets if not any(name.endswith(f".{target}") for name in layers)]
    if unknown or not targets:
        known = {name.rpartition(".")[2] for name, weight in layers.items() if getattr(weight, "ndim", 0) == 2}
        found = f", but {type(model).__name__} has no {', '.join(unknown)}" if unknown else ""
        raise ValueError(
            f"LoraSettings.target_modules is {targets}{found}; expected one or more of {', '.join(sorted(known))}, or "
            "'all-linear' alone."
        )
