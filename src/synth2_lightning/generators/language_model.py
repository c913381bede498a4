"""Caption generation with a local causal language model of transformers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from synth2_lightning.compat.transformers import cache_name, supports_attention_functions
from synth2_lightning.generators.continuous_batching import (
    ContinuousBatch,
    KeysAndValues,
    TokenRequest,
    attend_to_prefix_and_suffix,
)
from synth2_lightning.generators.token_sampling import TokenSampling
from synth2_lightning.interfaces import CaptionGenerator
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.io.huggingface import read_language_model
from synth2_lightning.io.locations import is_here, locate_model
from synth2_lightning.io.precision import WeightType
from synth2_lightning.nn.prompt_tokens import ChatPromptTokenizer
from synth2_lightning.types import Completion, Prompt

_ATTENTION = "synth2_prefix_and_suffix"
_SUFFIX_STEP = 64
_LIMITED_ATTENTION = ("sliding_window", "attention_chunk_size")


class LanguageModelCaptionGenerator(CaptionGenerator):
    """Causal language model that completes many prompts at once, each with its own seed.

    All messages before the last user message form the prefix, which is processed once for all prompts that share it;
    put constant parts (instructions, examples) there. If the last message is the assistant's, the completion starts
    with it and continues it. Prompts are rendered by the model's chat template; a model without one receives the
    messages as paragraphs, and its completion ends at a line break. A completion is the raw text, including reasoning
    and a reasoning tag opened by the template; :class:`~synth2_lightning.filters.answers.AnswerFilter` removes both.

    A completion depends only on its prompt, its seed and ``num_rows``, not on other prompts in the batch, see
    :mod:`synth2_lightning.generators.continuous_batching`. Another machine or number of threads may change the
    rounding.

    Args:
        model: Hugging Face Hub id, or a folder: a path, ``package://PACKAGE/PATH`` or ``weights://NAME``.
        gguf_file: Name of a GGUF file in the model's folder; its weights are dequantized.
        dtype: Type of the weights; ``"auto"`` is bfloat16 where the hardware computes it.
        num_rows: Number of completions generated at once.
        sampling: Sampling settings.

    Raises:
        ValueError: If ``num_rows`` is below 1.
    """

    anchor: Tensor

    def __init__(
        self,
        model: str,
        gguf_file: str | None = None,
        dtype: WeightType = "auto",
        num_rows: int = 64,
        sampling: TokenSampling = TokenSampling(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        if num_rows < 1:
            raise ValueError(f"LanguageModelCaptionGenerator got num_rows={num_rows}; expected 1 or more.")
        self.model = model
        self.model_name = gguf_file.removesuffix(".gguf") if gguf_file else model
        self.gguf_file = gguf_file
        self.dtype: WeightType = dtype
        self.num_rows = num_rows
        self.sampling = sampling
        self.network: Any = None
        self._prefixes: dict[tuple[int, ...], list[KeysAndValues]] = {}
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer of the pretrained model."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            self._location,
            gguf_file=self.gguf_file,
            trust_remote_code=False,
            local_files_only=is_here(self._location),
        )

    @cached_property
    def _prompt_tokenizer(self) -> ChatPromptTokenizer:
        return ChatPromptTokenizer(self.tokenizer)

    def _load(self) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, attend_to_prefix_and_suffix)
        network = read_language_model(self._location, self.gguf_file, self.dtype, "eager")
        config = network.config.get_text_config()
        limits = {name: getattr(config, name, None) for name in _LIMITED_ATTENTION}
        unsupported = [f"{name}={value}" for name, value in limits.items() if value is not None]
        unsupported += sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
        if unsupported or not supports_attention_functions(network):
            found = f" ({', '.join(unsupported)})" if unsupported else ""
            raise ValueError(
                f"{self.model} ({network.config.model_type}) has attention without support for a shared prefix{found}; "
                "expected a causal language model with full attention, such as Llama, Qwen or SmolLM. Serve this model "
                "(`transformers serve`, vLLM, llama.cpp) and use generators.openai.OpenAICaptionGenerator."
            )
        self.network = network.to(self.anchor.device)

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Return one completion per prompt.

        Raises:
            ValueError: If the numbers of seeds and prompts differ, or a prompt exceeds the model's positions.
        """
        if self.network is None:
            raise RuntimeError("LanguageModelCaptionGenerator is not loaded; call load() before generate().")
        if len(prompts) != len(seeds):
            raise ValueError(f"There are {len(prompts)} prompts and {len(seeds)} seeds; expected one seed per prompt.")
        parts = [self._prompt_tokenizer.encode(prompt) for prompt in prompts]
        groups: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
        for index, tokens in enumerate(parts):
            # Shapes affect rounding, so the suffix length must depend on the prompt alone.
            needed = len(tokens.suffix) + self.sampling.max_new_tokens - 1
            self._check_length(len(tokens.prefix) + needed)
            groups[tokens.prefix, -(-needed // _SUFFIX_STEP) * _SUFFIX_STEP].append(index)
        completions: dict[int, Completion] = {}
        with torch.autocast(self.anchor.device.type, enabled=False):
            for (prefix, suffix_length), members in groups.items():
                batch = ContinuousBatch(
                    self.network,
                    self._encode_prefix(prefix),
                    self.num_rows,
                    suffix_length,
                    self.sampling,
                    self._end_tokens,
                )
                answers = batch.complete([TokenRequest(parts[index].suffix, seeds[index]) for index in members])
                for index, answer in zip(members, answers, strict=True):
                    tokens = parts[index]
                    # In some models special tokens separate reasoning and answer.
                    decoded = self.tokenizer.decode((*tokens.opening, *answer.tokens), skip_special_tokens=False)
                    completions[index] = Completion(
                        text=(tokens.reasoning + decoded).strip(),
                        finish_reason="stop" if answer.is_complete else "length",
                        num_prompt_tokens=len(prefix) + len(tokens.suffix),
                        num_tokens=len(answer.tokens),
                    )
        return [completions[index] for index in range(len(prompts))]

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine completions, besides prompt and seed."""
        if self.network is None:
            raise RuntimeError("LanguageModelCaptionGenerator is not loaded; call load() before provenance().")
        return {
            "model": self.model_name,
            "weights": fingerprint_weights(self.network.config.model_type, self.network),
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "num_rows": self.num_rows,
            "sampling": asdict(self.sampling),
        }

    @property
    def _location(self) -> str:
        return locate_model(self.model, "language model")

    @cached_property
    def _end_tokens(self) -> frozenset[int]:
        ends = self.network.generation_config.eos_token_id
        tokens = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        if self.tokenizer.chat_template is None:
            tokens.update(self.tokenizer("\n", add_special_tokens=False).input_ids[-1:])
        return frozenset(tokens - {None})

    @torch.inference_mode()
    def _encode_prefix(self, prefix: tuple[int, ...]) -> list[KeysAndValues]:
        if prefix not in self._prefixes:
            self.network.set_attn_implementation("eager")
            ids = torch.tensor([prefix], device=self.anchor.device)
            layers = self.network(input_ids=ids, use_cache=True, logits_to_keep=1)[cache_name()].layers
            self._prefixes[prefix] = [(layer.keys[0], layer.values[0]) for layer in layers]
            self.network.set_attn_implementation(_ATTENTION)
        return self._prefixes[prefix]

    def _check_length(self, length: int) -> None:
        most = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and length > most:
            raise ValueError(
                f"A prompt with max_new_tokens={self.sampling.max_new_tokens} may need {length} positions; "
                f"{self.model_name} expected at most {most}. Shorten the prompt, use fewer examples, or lower "
                "sampling.max_new_tokens."
            )
