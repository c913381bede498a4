"""A local language model of transformers as a writer of captions."""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.generators.continuous_batching import (
    ContinuousBatch,
    KeysAndValues,
    TokenRequest,
    attend_to_beginning_and_tail,
)
from synth2_lightning.generators.token_sampling import SamplingSettings
from synth2_lightning.huggingface import read_language_model
from synth2_lightning.interfaces import CaptionGenerator
from synth2_lightning.locations import is_here, locate_model
from synth2_lightning.types import Completion, Prompt

_ATTENTION = "synth2_beginning_and_tail"
_TAIL_STEP = 64
_LIMITED_ATTENTION = ("sliding_window", "attention_chunk_size")
_OPENED_REASONING = re.compile(r"(?:<\|?[\w:]*(?:think|thinking|thought|reasoning)\|?>|\[THINK\])\s*\Z", re.IGNORECASE)


class LanguageModelCaptionGenerator(CaptionGenerator):
    """Has a causal language model answer prompts, many at once and each by a seed of its own.

    All messages of a prompt but the last question are its beginning, which is read once for all prompts that share it:
    put what does not change (instructions, examples) there. A prompt that ends with words of the assistant has them
    continued, and the answer begins with them. Prompts go through the model's chat template; a model without one is
    shown the messages as paragraphs, and its answer ends with the line. An answer is the raw text: it includes
    reasoning, and the tag that opens it where that is part of the template; a
    :class:`~synth2_lightning.filters.answers.AnswerFilter` removes both.

    An answer depends on its prompt, its seed and ``num_rows`` alone, not on what else is asked for at the same time:
    see :mod:`synth2_lightning.generators.continuous_batching`. Another machine or number of threads may round
    otherwise.

    Args:
        model: Name on the Hugging Face Hub, or a folder: a path, ``package://PACKAGE/PATH`` or ``weights://NAME``.
        gguf_file: Name of a GGUF file in it; its weights are unpacked.
        dtype: Precision of the weights; ``"bfloat16"`` is two to three times as fast on CPUs that know it.
        num_rows: How many answers are written at once.
        sampling: How tokens are drawn.

    Raises:
        ValueError: If ``num_rows`` is below one.

    Example:
        >>> LanguageModelCaptionGenerator("HuggingFaceTB/SmolLM2-135M-Instruct").model_name
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """

    anchor: Tensor

    def __init__(
        self,
        model: str,
        gguf_file: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
        num_rows: int = 64,
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        if num_rows < 1:
            raise ValueError(f"LanguageModelCaptionGenerator got num_rows={num_rows}; expected 1 or more.")
        self.model = model
        self.gguf_file = gguf_file
        self.dtype: Literal["float32", "bfloat16", "float16"] = dtype
        self.num_rows = num_rows
        self.sampling = sampling
        self.network: Any = None
        self._beginnings: dict[tuple[int, ...], list[KeysAndValues]] = {}
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @property
    def model_name(self) -> str:  # type: ignore[override]  # read off an argument
        """What records call the model."""
        return self.gguf_file.removesuffix(".gguf") if self.gguf_file else self.model

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the weights."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            self._location,
            gguf_file=self.gguf_file,
            trust_remote_code=False,
            local_files_only=is_here(self._location),
        )

    def load(self) -> None:
        """Bring the weights; the second call does nothing.

        Raises:
            ValueError: If it is no causal language model, or its attention is none that rows with a shared beginning
                can be written by.
        """
        if self.network is not None:
            return
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, attend_to_beginning_and_tail)
        network = read_language_model(self._location, self.gguf_file, self.dtype, "eager")
        config = network.config.get_text_config()
        limits = {name: getattr(config, name, None) for name in _LIMITED_ATTENTION}
        odd = [f"{name}={value}" for name, value in limits.items() if value is not None]
        odd += sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
        if odd or not getattr(network, "_supports_attention_backend", False):
            found = f" ({', '.join(odd)})" if odd else ""
            raise ValueError(
                f"{self.model} ({network.config.model_type}) has an attention that cannot be shared between prompts"
                f"{found}; expected a causal language model with full attention, such as Llama, Qwen or SmolLM. Serve "
                "this one (`transformers serve`, vLLM, llama.cpp) and use generators.openai.OpenAICaptionGenerator."
            )
        self.network = network.requires_grad_(False).to(self.anchor.device).eval()

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Answer each prompt.

        Raises:
            ValueError: If there are not as many seeds as prompts, or a prompt is longer than the model reads.
            RuntimeError: If ``load()`` was not called.
        """
        if self.network is None:
            raise RuntimeError("The LanguageModelCaptionGenerator has no weights yet; call load() before generate().")
        if len(prompts) != len(seeds):
            raise ValueError(f"There are {len(prompts)} prompts and {len(seeds)} seeds; expected one seed per prompt.")
        parts = [self._split(prompt) for prompt in prompts]
        groups: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
        for index, (beginning, tail, *_) in enumerate(parts):
            # The tail's length decides shapes, and shapes decide rounding: so it must be the prompt's own affair.
            needed = len(tail) + self.sampling.max_new_tokens - 1
            self._check_length(len(beginning) + needed)
            groups[beginning, -(-needed // _TAIL_STEP) * _TAIL_STEP].append(index)
        completions: dict[int, Completion] = {}
        with torch.autocast(self.anchor.device.type, enabled=False):
            for (beginning, tail_length), members in groups.items():
                batch = ContinuousBatch(
                    self.network, self._read(beginning), self.num_rows, tail_length, self.sampling, self._end_tokens
                )
                answers = batch.answer([TokenRequest(parts[index][1], seeds[index]) for index in members])
                for index, answer in zip(members, answers, strict=True):
                    _, tail, opening, reasoning = parts[index]
                    # Special tokens are kept: in some models they are what separates reasoning from the answer.
                    text = reasoning + self.tokenizer.decode((*opening, *answer.tokens), skip_special_tokens=False)
                    completions[index] = Completion(
                        text=text.strip(),
                        finish_reason="stop" if answer.is_finished else "length",
                        num_prompt_tokens=len(beginning) + len(tail),
                        num_tokens=len(answer.tokens),
                    )
        return [completions[index] for index in range(len(prompts))]

    def provenance(self) -> dict[str, Any]:
        """Give what decides the answers besides prompt and seed."""
        if self.network is None:
            raise RuntimeError("The LanguageModelCaptionGenerator has no weights yet; call load() before provenance().")
        return {
            "model": self.model_name,
            "weights": fingerprint_weights(self.network.config.model_type, self.network),
            "dtype": self.dtype,
            "num_rows": self.num_rows,
            "sampling": vars(self.sampling),
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

    def _split(self, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str]:
        """Ids before the last question, ids after, those of them that open the answer, and an opened reasoning tag."""
        opening = prompt[-1].content if prompt[-1].role == "assistant" else ""
        asked = prompt[:-1] if opening else prompt
        beginning, whole = self._render(asked[:-1], invite=False), self._render(asked, invite=True)
        if not whole.startswith(beginning):  # a template that writes about the end of a conversation at its beginning
            beginning = ""
        ids, tail, opened = (
            tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
            for text in (beginning, whole.removeprefix(beginning), opening)
        )
        tail += opened
        tag = None if opening else _OPENED_REASONING.search(whole[-64:])
        return (*((ids, tail) if ids else (tail[:1], tail[1:])), opened, tag[0] if tag else "")

    def _render(self, messages: Prompt, invite: bool) -> str:
        if self.tokenizer.chat_template is None:
            return "".join(f"{message.content}\n\n" for message in messages)
        if not messages:
            return ""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=invite))

    @torch.inference_mode()
    def _read(self, beginning: tuple[int, ...]) -> list[KeysAndValues]:
        if beginning not in self._beginnings:
            self.network.set_attn_implementation("eager")
            ids = torch.tensor([beginning], device=self.anchor.device)
            layers = self.network(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values.layers
            self._beginnings[beginning] = [(layer.keys[0], layer.values[0]) for layer in layers]
            self.network.set_attn_implementation(_ATTENTION)
        return self._beginnings[beginning]

    def _check_length(self, length: int) -> None:
        most = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and length > most:
            raise ValueError(
                f"A prompt and an answer of up to {self.sampling.max_new_tokens} tokens may need {length} positions, "
                f"but {self.model_name} has {most}. Shorten the prompt, give fewer examples, or lower "
                "sampling.max_new_tokens."
            )
