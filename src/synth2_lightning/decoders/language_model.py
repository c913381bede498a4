"""Where the language model of a decoder comes from: weights that exist, or a configuration to start from."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from synth2_lightning.huggingface import NewNetwork, check_config, check_language_model, read_language_model
from synth2_lightning.locations import is_here, locate_model


class LanguageModelSource(ABC):
    """A tokenizer, the width of a language model, and a way to build it.

    Tokenizer and configuration are read when they are first asked for, the weights only in :meth:`build`.
    """

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The fast tokenizer of transformers; its ends of text are those that the model learns."""

    @property
    @abstractmethod
    def config(self) -> Any:
        """The configuration of transformers."""

    @abstractmethod
    def build(self) -> Any:
        """A causal language model of transformers, whose parameters require gradients where they shall be learnt."""

    @property
    def hidden_size(self) -> int:
        """E, the width of the model's hidden states.

        Raises:
            ValueError: If the configuration is not that of a decoder-only language model.
        """
        check_config(self.config, getattr(self.config, "name_or_path", "") or "of a new network")
        return int(self.config.get_text_config().hidden_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank updates beside frozen weights (LoRA, arXiv 2106.09685), by PEFT.

    Args:
        r: Rank of the updates.
        alpha: The updates are scaled by ``alpha / r``.
        dropout: Share of the updates' input that is dropped in training.
        target_modules: Names of the linear maps to update; ``("all-linear",)`` takes all but the head.

    Example:
        >>> LoraSettings(r=4).alpha
        16.0
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("all-linear",)


class PretrainedLanguageModel(LanguageModelSource):
    """A causal language model with weights, frozen unless said otherwise.

    Args:
        model: Name on the Hugging Face Hub, or a folder: a path, ``package://PACKAGE/PATH`` or ``weights://NAME``.
        gguf_file: Name of a GGUF file in it. Its weights are unpacked, because packed ones cannot be learnt through.
        dtype: Precision of the weights. Half is enough for frozen ones, and two to three times as fast on CPUs that
            know bfloat16; learn in float32.
        trainable: Learn all weights.
        lora: Learn low-rank updates of the weights.
        attn_implementation: Attention kernel of transformers; ``None`` leaves the choice to transformers. ``"eager"``
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
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        trainable: bool = False,
        lora: LoraSettings | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        if trainable and lora is not None:
            raise ValueError(
                "PretrainedLanguageModel was given trainable=True and lora; expected one of them: trainable learns all "
                "weights, lora keeps them and learns low-rank updates."
            )
        self.model = model
        self.gguf_file = gguf_file
        self.dtype = dtype
        self.trainable = trainable
        self.lora = lora
        self.attn_implementation = attn_implementation

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the weights."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._location, **self._reading)

    @cached_property
    def config(self) -> Any:
        """The configuration that came with the weights."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self._location, **self._reading)

    def build(self) -> Any:
        """Read the weights."""
        model = read_language_model(self._location, self.gguf_file, self.dtype, self.attn_implementation)
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
    """A causal language model that starts from nothing and is learnt along.

    Args:
        config: The configuration of a Hugging Face model, such as
            ``{"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4}``. Size of the vocabulary and special
            tokens are the tokenizer's.
        tokenizer: Where the tokenizer lies, such as the folder that ``build_vocabulary`` wrote, or its Hub name.

    Raises:
        ValueError: If ``config`` lacks ``model_type``, or has a key that such a model does not know.

    Example:
        >>> vocabulary = "package://synth2_lightning/scenes/vocabulary"
        >>> NewLanguageModel({"model_type": "gpt2", "n_embd": 192}, vocabulary).hidden_size
        192
    """

    def __init__(self, config: dict[str, Any], tokenizer: str) -> None:
        self._plan = NewNetwork(config, tokenizer, "NewLanguageModel")

    @property
    def tokenizer(self) -> Any:
        """The tokenizer at the given place."""
        return self._plan.tokenizer

    @property
    def config(self) -> Any:
        """The given configuration, with the tokenizer's vocabulary."""
        return self._plan.config

    def build(self) -> Any:
        """Draw weights from torch's global random state."""
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_config(self.config)
        except Exception as error:  # every network has checks of its own
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise ValueError(
                f"NewLanguageModel.config describes no {self.config.model_type!r} model that can be built: {reason}. "
                "Expected sizes that go together; see the configuration class of transformers."
            ) from error
        check_language_model(model, "of a new network")
        return model


def _add_lora(model: Any, lora: LoraSettings) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    settings = asdict(lora)
    targets = settings["target_modules"]
    inject_adapter_in_model(
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear" if targets == ("all-linear",) else list(targets),
            task_type="CAUSAL_LM",
        ),
        model,
    )
    for parameter in model.parameters():
        if parameter.requires_grad:  # Updates of half precision would round small steps away.
            parameter.data = parameter.data.float()
