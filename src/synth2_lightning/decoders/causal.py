"""What all decoders around a causal language model of transformers share."""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.functional import one_hot, pad

from synth2_lightning.decoders.beam_search import beam_search
from synth2_lightning.decoders.language_model import LanguageModelSource
from synth2_lightning.decoders.tokens import CaptionTokenizer
from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.interfaces import LanguageDecoder
from synth2_lightning.nn.likelihood import negative_log_likelihood
from synth2_lightning.types import GenerationSettings, TokenLoss


class CausalDecoder(LanguageDecoder, ABC):
    """Trains and asks a causal language model; a subclass says how the model gets to see (:meth:`show`).

    Args:
        language_model: Where the language model comes from. What it does not learn stays in ``eval()``.
        prompt: What stands before captions that come without a prompt of their own.
        max_text_tokens: Cut captions after so many tokens; ``None`` cuts nothing.
        checkpoint_activations: Compute the model's blocks again in the backward pass rather than keep what they
            computed.
    """

    def __init__(
        self,
        language_model: LanguageModelSource,
        prompt: str = "",
        max_text_tokens: int | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.source = language_model
        self.prompt = prompt
        self.max_text_tokens = max_text_tokens
        self.checkpoint_activations = checkpoint_activations
        self.embed_dim = language_model.hidden_size
        self.lm: Any = None
        self._lm_learns = False

    def load(self) -> None:
        """Bring the language model; the second call does nothing."""
        if self.lm is not None:
            return
        from transformers import GenerationConfig

        lm = self.source.build()
        lm.generation_config = GenerationConfig()  # Or what the Hub thinks of sampling would mix with our settings.
        self._lm_learns = any(parameter.requires_grad for parameter in lm.parameters())
        self.fit_in(lm)
        self.lm = lm
        self.train(self.training)

    @abstractmethod
    def fit_in(self, lm: Any) -> None:
        """Prepare the language model and the parts that depend on its weights, once they are there."""

    @abstractmethod
    def show(
        self, visual: Float[Tensor, "batch queries width"]
    ) -> AbstractContextManager[Float[Tensor, "batch prefix width"]]:
        """Let the language model see pictures while the context lasts.

        Args:
            visual: Visual tokens. The model may read several rows for each picture, which follow each other.

        Returns:
            A context whose value are the embeddings to put before the words, maybe none.
        """

    @abstractmethod
    def keep_pictures(self, kept: Int[Tensor, " pictures"]) -> None:
        """Let the language model see some of the pictures only, from now on, until the context of :meth:`show` ends.

        Args:
            kept: Numbers, among those that it sees now.
        """

    @cached_property
    def captions(self) -> CaptionTokenizer:
        """The rules by which captions become ids."""
        return CaptionTokenizer(self.source.tokenizer, self.prompt, self.max_text_tokens)

    def fingerprint_vocabulary(self) -> str:
        """Return a checksum of the tokenizer's words and their ids."""
        return fingerprint_texts(
            f"{number} {word}" for word, number in sorted(self.source.tokenizer.get_vocab().items())
        )

    def train(self, mode: bool = True) -> "CausalDecoder":
        """Set the mode, but for a frozen language model."""
        super().train(mode)
        if self.lm is not None and not self._lm_learns:
            self.lm.eval()
        return self

    def loss(
        self,
        visual: Float[Tensor, "batch queries width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Negative log-likelihood of each text (and of the end after it), given its picture and its prompt.

        Raises:
            ValueError: If a text is empty, or longer than the language model's context.
        """
        tokens = self.captions.encode(texts, prompts)
        device = visual.device
        with self.show(visual) as prefix:
            self._check_length(prefix.shape[1] + tokens.inputs.shape[1], "captions")
            # Padding stands on the right, where causal attention never looks: no mask is needed.
            embeds = self._embed(prefix, tokens.inputs.to(device))
            asked = pad(tokens.is_target, (prefix.shape[1], 0)).flatten().nonzero().squeeze(1)
            with _only_at(self.lm.get_output_embeddings(), asked.to(device)):
                logits = self.lm(inputs_embeds=embeds, use_cache=False).logits
        is_target = tokens.is_target.to(device)
        losses = negative_log_likelihood(logits, tokens.targets[tokens.is_target].to(device))
        sums = losses.new_zeros(is_target.shape).masked_scatter(is_target, losses).sum(1)
        return TokenLoss(sums, is_target.sum(1))

    @torch.no_grad()
    def generate(
        self,
        visual: Float[Tensor, "batch queries width"],
        settings: GenerationSettings,
        prompts: Sequence[str] | None = None,
    ) -> list[str]:
        """Write one text per row.

        Raises:
            ValueError: If prompt and text may outgrow the language model's context.
        """
        tokens = self.captions.encode_prompts([self.prompt] * len(visual) if prompts is None else prompts)
        with self.show(visual) as prefix, _without_advice():
            self._check_length(prefix.shape[1] + tokens.inputs.shape[1] + settings.max_new_tokens, "generated texts")
            synced = _is_sharded(self.lm)
            search = partial(
                beam_search, settings=settings, end=self.captions.end, keep_pictures=self.keep_pictures, synced=synced
            )
            embeds = self._embed(prefix, tokens.inputs.to(visual.device))
            mask = pad(tokens.mask, (prefix.shape[1], 0), value=True).long().to(visual.device)
            # Padding goes before the picture: sliding windows, and the states of recurrent models, know no holes.
            order = mask.argsort(dim=1, stable=True)
            ids = self.lm.generate(
                inputs_embeds=embeds.take_along_dim(order[..., None], dim=1),
                attention_mask=mask.take_along_dim(order, dim=1),
                generation_config=self._generation_config(settings),
                logits_processor=_repetition_penalty(settings),
                synced_gpus=synced,
                custom_generate=None if settings.do_sample else search,
            )
        return self.captions.decode(ids)

    @torch.no_grad()
    def attention(
        self, visual: Float[Tensor, "batch queries width"], texts: Sequence[str]
    ) -> list[Float[Tensor, "words queries"]]:
        """Say where the language model looks when it is about to say each word; rows sum to one.

        A word of several tokens has their mean. Texts that are cut have rows for the words that are left.

        Raises:
            ValueError: If a text is empty, or longer than the language model's context.
            TypeError: If the language model has no attention to be looked at.
        """
        tokens = self.captions.encode(texts, None)
        with self.show(visual) as prefix:
            self._check_length(prefix.shape[1] + tokens.inputs.shape[1], "captions")
            of_positions = self.trace(self._embed(prefix, tokens.inputs.to(visual.device)), prefix.shape[1])
        words = []
        for weights, is_target, numbers in zip(
            of_positions, tokens.is_target, self.captions.word_numbers(texts), strict=True
        ):
            of_tokens = weights[is_target.to(weights.device)][: len(numbers)]
            member = one_hot(torch.tensor(numbers[: len(of_tokens)], device=weights.device)).to(weights.dtype)
            words.append((member / member.sum(0)).T @ of_tokens)
        return words

    @abstractmethod
    def trace(
        self, embeds: Float[Tensor, "batch length width"], num_before: int
    ) -> Float[Tensor, "batch positions queries"]:
        """Run the language model and say where every word's position looks at the picture; rows sum to one.

        Args:
            embeds: What :meth:`show` puts before the words, and the words.
            num_before: How many of these are no words.
        """

    def _embed(self, prefix: Tensor, ids: Tensor) -> Tensor:
        words: Tensor = self.lm.get_input_embeddings()(ids)
        return torch.cat([prefix.to(words.dtype), words], dim=1)

    def _check_length(self, length: int, what: str) -> None:
        context = getattr(self.source.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and length > context:
            raise ValueError(
                f"The longest of the {what} needs {length} positions with its prompt and its picture, but the language "
                f"model has a context of {context}. Cut captions by the decoder's max_text_tokens, ask for fewer "
                "max_new_tokens, shorten the prompt, or take a language model with a longer context."
            )

    def _generation_config(self, settings: GenerationSettings) -> Any:
        from transformers import GenerationConfig

        tokenizer = self.source.tokenizer
        unknown = tokenizer.unk_token_id
        own = {"repetition_penalty"} if settings.do_sample else {"repetition_penalty", "num_beams", "length_penalty"}
        return GenerationConfig(
            **(asdict(settings) | dict.fromkeys(own)),
            top_k=0 if settings.do_sample else None,  # Transformers would keep 50 words unasked.
            eos_token_id=self.captions.end,
            pad_token_id=self.captions.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            # "Unknown" is no word to say; in some vocabularies it is also the end.
            suppress_tokens=None if unknown in (None, self.captions.end) else [unknown],
        )


@contextmanager
def _only_at(head: nn.Module, positions: Int[Tensor, " targets"]) -> Iterator[None]:
    # The head is the dearest layer of a small language model: most of its positions, the picture's and the padding's,
    # have no target. Asked through a hook, what a model does to its logits afterwards (scales, caps) stays its own.
    def select(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0].flatten(0, -2).index_select(0, positions)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _without_advice() -> Iterator[None]:
    # Repetitions are counted in what is written, not in the prompt, as they should be. And a mask that hides nothing is
    # dropped by transformers itself, which then takes texts that have ended for unmasked padding.
    logger = logging.getLogger("transformers.modeling_utils")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Passing `no_repeat_ngram_size` with `inputs_embeds`")
        logger.addFilter(_is_not_about_padding)
        try:
            yield
        finally:
            logger.removeFilter(_is_not_about_padding)


def _is_not_about_padding(record: logging.LogRecord) -> bool:
    return "passing in an `attention_mask`" not in record.getMessage()


def _repetition_penalty(settings: GenerationSettings) -> Any:
    # Given the setting itself, transformers 5.23 takes the padding of a prompt for as many written tokens, and spares
    # those: a caption in a batch would differ from the caption alone.
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    if settings.repetition_penalty == 1:
        return LogitsProcessorList()
    return LogitsProcessorList([RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)])


def _is_sharded(model: nn.Module) -> bool:
    # Ranks that hold parts of the same weights must take the same number of steps.
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return False
    return any(isinstance(part, FullyShardedDataParallel) for part in model.modules()) or any(
        isinstance(parameter, DTensor) for parameter in model.parameters()
    )
