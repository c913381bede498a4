"""Decoders that wrap a causal language model of transformers."""

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

from synth2_lightning.compat.transformers import run_network
from synth2_lightning.decoders.beam_search import beam_search
from synth2_lightning.decoders.language_model import LanguageModelSource
from synth2_lightning.decoders.logits_processors import NO_REPETITION_SETTINGS, add_gumbel_noise, repetition_processors
from synth2_lightning.decoders.tokens import CaptionTokenizer, PromptTokens, TargetTokens
from synth2_lightning.decoders.visual_context import VisualContext
from synth2_lightning.interfaces import LanguageDecoder
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.io.log_filters import without_messages
from synth2_lightning.nn.cpu_kernels import negative_log_likelihood
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.types import GenerationSettings, SampledTexts, TokenLoss

_ROWS_ON_CPU = 32
"""Rows per forward pass of a loss on a CPU: fewer have less padding, more have less overhead.

Between the best of float32 with AVX2, 16, and of bfloat16 with AMX, 64.
"""


class CausalDecoder(LanguageDecoder, ABC):
    """Wraps a causal language model; subclasses define how visual tokens condition it (:meth:`visual_context`).

    Args:
        language_model: Builds the language model. A model without trainable weights stays in ``eval()``.
        prompt: Prompt of texts that have none of their own, see :class:`~synth2_lightning.interfaces.LanguageDecoder`.
        max_text_tokens: Truncate captions to this number of tokens; ``None`` truncates none.
        checkpoint_activations: Recompute the activations of the model's blocks in the backward pass.

    Raises:
        ValueError: If ``max_text_tokens`` is below 1.
    """

    def __init__(
        self,
        language_model: LanguageModelSource,
        prompt: str = "",
        max_text_tokens: int | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if max_text_tokens is not None and max_text_tokens < 1:
            raise ValueError(
                f"{type(self).__name__}.max_text_tokens is {max_text_tokens}; expected 1 or more, or None to truncate "
                "no text."
            )
        self.source = language_model
        self.prompt = prompt
        self.max_text_tokens = max_text_tokens
        self.checkpoint_activations = checkpoint_activations
        self.embed_dim = language_model.hidden_size
        self.lm: Any = None
        self._lm_is_trainable = False

    def _load(self) -> None:
        from transformers import GenerationConfig

        lm = self.source.build()
        lm.generation_config = GenerationConfig()  # The settings published with a model would mix with ours.
        self._lm_is_trainable = any(parameter.requires_grad for parameter in lm.parameters())
        self.attach(lm)
        self.lm = lm
        self.train(self.training)

    @abstractmethod
    def attach(self, lm: Any) -> None:
        """Modify the language model and add the layers that depend on its weights; called once, by :meth:`load`."""

    @abstractmethod
    def visual_context(self, visual: Float[Tensor, "batch latents width"]) -> AbstractContextManager[VisualContext]:
        """Return a context manager in which the language model is conditioned on images.

        Args:
            visual: Visual tokens. In the model's batch each image may have several adjacent rows, such as its beams.
        """

    @abstractmethod
    def token_attention(
        self, embeds: Float[Tensor, "batch length width"], num_before: int
    ) -> Float[Tensor, "batch positions latents"]:
        """Run the language model and return the attention of each token to the visual tokens; rows sum to one.

        Called in a :meth:`visual_context`.

        Args:
            embeds: Embeddings of the context's prefix and of the tokens.
            num_before: Length of the prefix.
        """

    @cached_property
    def caption_tokenizer(self) -> CaptionTokenizer:
        """Converts captions to token ids."""
        return CaptionTokenizer(self.source.tokenizer, self.prompt, self.max_text_tokens)

    def fingerprint_vocabulary(self) -> str:
        """Return a checksum of the tokenizer's tokens and their ids."""
        return fingerprint_texts(
            f"{number} {word}" for word, number in sorted(self.source.tokenizer.get_vocab().items())
        )

    def train(self, mode: bool = True) -> "CausalDecoder":
        """Set the mode; a frozen language model stays in ``eval()``."""
        super().train(mode)
        if self.lm is not None and not self._lm_is_trainable:
            self.lm.eval()
        return self

    def loss(
        self,
        visual: Float[Tensor, "batch latents width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Return the loss of each text; logits are computed at the targets only.

        On a CPU, texts of similar lengths are processed together, so that there is little padding.
        """
        return self._loss_of(self.caption_tokenizer.encode(texts, prompts), visual)

    def sample(
        self,
        visual: Float[Tensor, "batch latents width"],
        num_samples: int,
        max_new_tokens: int,
        prompts: Sequence[str] | None = None,
    ) -> SampledTexts:
        """Sample texts with a key/value cache, then compute the likelihoods of their tokens in one forward pass."""
        prompts = self.caption_tokenizer.fill_prompts(prompts, len(visual))
        prompts = [prompt for prompt in prompts for _ in range(num_samples)]
        visual = visual.repeat_interleave(num_samples, dim=0)
        settings = GenerationSettings(max_new_tokens=max_new_tokens)
        tokens = self.caption_tokenizer.encode_prompts(prompts)
        ids = self._generate_ids(visual, settings, tokens, [add_gumbel_noise])
        losses = self._loss_of(self.caption_tokenizer.encode_generated(ids, prompts), visual, self._suppressed_ids)
        is_complete = (ids == self.caption_tokenizer.eos_id).any(1)
        return SampledTexts(tuple(self.caption_tokenizer.decode(ids)), tuple(is_complete.tolist()), losses)

    def _loss_of(self, tokens: TargetTokens, visual: Tensor, impossible_ids: Sequence[int] = ()) -> TokenLoss:
        if visual.device.type != "cpu" or len(visual) <= _ROWS_ON_CPU or _is_sharded(self.lm):
            return self._loss_of_rows(tokens, visual, impossible_ids)
        order = tokens.lengths().argsort()
        losses = [
            self._loss_of_rows(tokens.select(rows), visual.index_select(0, rows), impossible_ids)
            for rows in order.split(_ROWS_ON_CPU)
        ]
        parts = [(loss.sums, loss.counts) for loss in losses]
        sums, counts = (torch.cat(part).index_select(0, order.argsort()) for part in zip(*parts, strict=True))
        return TokenLoss(sums, counts)

    def _loss_of_rows(self, tokens: TargetTokens, visual: Tensor, impossible_ids: Sequence[int]) -> TokenLoss:
        device = visual.device
        with self.visual_context(visual) as context:
            prefix = context.prefix
            self._check_length(prefix.shape[1] + tokens.inputs.shape[1], "captions")
            embeds = self._embed(prefix, to_device(tokens.inputs, device))
            positions = pad(tokens.is_target, (prefix.shape[1], 0)).flatten().nonzero().squeeze(1)
            positions = to_device(positions, device)
            with only_at(self.lm.get_output_embeddings(), positions):
                # Padding is on the right, so causal attention excludes it.
                mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=device)
                outputs = run_network(
                    self.lm, has_padding=False, inputs_embeds=embeds, attention_mask=mask, use_cache=False
                )
                logits = outputs.logits
        if impossible_ids:
            logits[:, list(impossible_ids)] = -torch.inf
        losses = negative_log_likelihood(logits, to_device(tokens.targets[tokens.is_target], device))
        # The backward pass of masked_scatter would wait for the device.
        by_position = losses.new_zeros(mask.numel()).index_copy(0, positions, losses).view(mask.shape)
        return TokenLoss(by_position.sum(1), to_device(tokens.is_target.sum(1), device))

    def generate(
        self,
        visual: Float[Tensor, "batch latents width"],
        settings: GenerationSettings,
        prompts: Sequence[str] | None = None,
    ) -> list[str]:
        """Generate one text per image: greedily or by :func:`beam_search`, or by sampling of transformers."""
        prompts = self.caption_tokenizer.fill_prompts(prompts, len(visual))
        ids = self.generate_ids(visual, settings, self.caption_tokenizer.encode_prompts(prompts))
        return self.caption_tokenizer.decode(ids)

    def generate_ids(
        self, visual: Float[Tensor, "batch latents width"], settings: GenerationSettings, prompts: PromptTokens
    ) -> Int[Tensor, "batch length"]:
        """Return the token ids of one text per image, without its prompt; after its end-of-text token is padding.

        Args:
            visual: Visual tokens.
            settings: Decoding settings.
            prompts: One row per image, see :meth:`CaptionTokenizer.encode_prompts`.

        Raises:
            ValueError: If the texts may get too long for the language model.
        """
        return self._generate_ids(visual, settings, prompts, repetition_processors(settings))

    def logits(
        self, visual: Float[Tensor, "batch latents width"], ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Return the logits of the token after each given one.

        Args:
            visual: Visual tokens.
            ids: Token ids of prompts and texts, padded on the right with any ids.

        Raises:
            ValueError: If the texts are too long for the language model.
        """
        with self.visual_context(visual) as context:
            num_before = context.prefix.shape[1]
            self._check_length(num_before + ids.shape[1], "texts")
            # Padding is on the right, so causal attention excludes it.
            logits: Tensor = self.lm(inputs_embeds=self._embed(context.prefix, ids), use_cache=False).logits
        return logits[:, num_before:]

    @torch.no_grad()
    def _generate_ids(
        self, visual: Tensor, settings: GenerationSettings, tokens: PromptTokens, processors: Sequence[Any]
    ) -> Tensor:
        from transformers import LogitsProcessorList

        with (
            self.visual_context(visual) as context,
            # transformers drops a mask without zeros, then warns that the padding of finished texts is not masked.
            without_messages("transformers.modeling_utils", "passing in an `attention_mask`"),
        ):
            prefix = context.prefix
            num_given = prefix.shape[1] + tokens.inputs.shape[1]
            self._check_length(num_given + settings.max_new_tokens - 1, "generated texts")  # the last token is no input
            synced = _is_sharded(self.lm)
            search = partial(
                beam_search,
                settings=settings,
                eos_id=self.caption_tokenizer.eos_id,
                select_images=context.select_images,
                synced=synced,
            )
            embeds = self._embed(prefix, tokens.inputs.to(visual.device))
            mask = pad(tokens.mask, (prefix.shape[1], 0), value=True).long().to(visual.device)
            # Padding comes before the prefix: sliding windows and recurrent states do not allow gaps.
            order = mask.argsort(dim=1, stable=True)
            ids: Tensor = self.lm.generate(
                inputs_embeds=embeds.take_along_dim(order[..., None], dim=1),
                attention_mask=mask.take_along_dim(order, dim=1),
                generation_config=self._generation_config(settings),
                logits_processor=LogitsProcessorList(processors),
                synced_gpus=synced,
                custom_generate=None if settings.do_sample else search,
            )
        # Autocast keeps casts of weights; those of this function have no gradient with torch 2.7, and a loss would use
        # them.
        torch.clear_autocast_cache()
        return ids

    @torch.no_grad()
    def attention(
        self, visual: Float[Tensor, "batch latents width"], texts: Sequence[str]
    ) -> list[Float[Tensor, "words latents"]]:
        """Return the attention with which each word is predicted; a word of several tokens has their mean.

        A truncated text has rows for the words that are left. A word without a token of its own, because the token of
        the next word contains it, has a row of zeros.

        Raises:
            ValueError: If a text is empty, or longer than the language model's context.
            TypeError: If the language model returns no attention weights.
        """
        tokens = self.caption_tokenizer.encode(texts, None)
        with self.visual_context(visual) as context:
            num_before = context.prefix.shape[1]
            self._check_length(num_before + tokens.inputs.shape[1], "captions")
            of_positions = self.token_attention(
                self._embed(context.prefix, tokens.inputs.to(visual.device)), num_before
            )
        words = []
        for weights, is_target, indices in zip(
            of_positions, tokens.is_target, self.caption_tokenizer.word_indices(texts), strict=True
        ):
            of_tokens = weights[is_target.to(weights.device)][: len(indices)]
            member = one_hot(torch.tensor(indices[: len(of_tokens)], device=weights.device)).to(weights.dtype)
            words.append((member / member.sum(0).clamp(min=1)).T @ of_tokens)
        return words

    def _embed(self, prefix: Tensor, ids: Tensor) -> Tensor:
        embeddings: Tensor = self.lm.get_input_embeddings()(ids)
        return torch.cat([prefix.to(embeddings.dtype), embeddings], dim=1)

    def _check_length(self, length: int, what: str) -> None:
        context = getattr(self.source.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and length > context:
            raise ValueError(
                f"The longest of the {what} needs {length} positions with its visual tokens and its prompt; expected "
                f"at most {context}, the language model's context. Set the decoder's max_text_tokens, lower "
                "max_new_tokens, shorten the prompt, or choose a language model with a longer context."
            )

    def _generation_config(self, settings: GenerationSettings) -> Any:
        from transformers import GenerationConfig

        own = () if settings.do_sample else ("num_beams", "length_penalty")
        return GenerationConfig(
            **(asdict(settings) | NO_REPETITION_SETTINGS | dict.fromkeys(own)),
            top_k=0 if settings.do_sample else None,  # The default of transformers is 50.
            eos_token_id=self.caption_tokenizer.eos_id,
            pad_token_id=self.caption_tokenizer.pad_id,
            suppress_tokens=self._suppressed_ids or None,
        )

    @property
    def _suppressed_ids(self) -> list[int]:
        # The unknown token is no word of a caption; in some vocabularies it is also the end of text.
        unk_id = self.source.tokenizer.unk_token_id
        return [] if unk_id in (None, self.caption_tokenizer.eos_id) else [unk_id]


@contextmanager
def only_at(head: nn.Module, positions: Int[Tensor, " targets"]) -> Iterator[None]:
    """Compute the logits of an output layer at some positions only, inside the context.

    Args:
        head: Output layer of a language model.
        positions: Indices of positions of the flattened batch.
    """

    # The output layer is the most expensive one of a small language model, and most positions (visual tokens, prompt,
    # padding) have no target. A hook keeps what a model does to its logits afterwards, such as scaling or soft-capping.
    def select(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0].flatten(0, -2).index_select(0, positions)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _is_sharded(model: nn.Module) -> bool:
    # Ranks that hold shards of the same weights must call the model equally often.
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return False
    return any(isinstance(part, FullyShardedDataParallel) for part in model.modules()) or any(
        isinstance(parameter, DTensor) for parameter in model.parameters()
    )
