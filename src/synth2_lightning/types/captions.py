"""Concepts, prompts, generated captions and the verdicts of filters."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One caption to synthesize an image from.

    Args:
        key: Id of the record, the same in every run.
        caption: The text.
        class_name: Class that the caption was written for; empty if unknown.
        is_complete: Whether the text ended before the maximum length of its generation.
        image_id: Id of the image that the caption describes; captions with the same id can share a generated image.
            Empty if unknown.
    """

    key: str
    caption: str
    class_name: str = ""
    is_complete: bool = True
    image_id: str = ""


Condition = str | tuple[str, ...]
"""What an image is generated from: a caption, or several captions of the same image."""


@dataclass(frozen=True, slots=True)
class Concept:
    """Subject of a caption to generate.

    Args:
        key: Id, unique within the source, such as a WordNet synset.
        name: One lemma, with spaces.
        definition: Gloss that disambiguates the name; empty if unknown.
        branch: Top-level category, such as ``"animal"``; empty if unknown.
        weight: Relative frequency within the source, above 0, such as a count.
    """

    key: str
    name: str
    definition: str = ""
    branch: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; the fields are those of the chat completions API."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = tuple[ChatMessage, ...]
"""Conversation from which a language model writes one caption."""


CLASS_NAME_SEPARATOR = " + "
"""Joins the class names of a caption of several classes."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Output of a language model for one prompt.

    Args:
        text: The raw output, including preambles and refusals.
        finish_reason: ``"stop"`` at the end of the text, ``"length"`` at the token limit, or a value of the server.
        num_prompt_tokens: Tokens of the prompt.
        num_tokens: Tokens of the output.
    """

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a filter for one caption.

    Args:
        caption: The caption, cleaned if the filter cleans.
        reason: Why the caption is rejected; empty if it is kept.
    """

    caption: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults by vars()
class GenerationSettings:
    """Decoding settings of captions, with the names and semantics of transformers' ``generate``.

    Args:
        max_new_tokens: Maximum number of tokens of a caption.
        num_beams: Beam width; 1 is greedy decoding, or sampling with ``do_sample``.
        do_sample: Sample tokens instead of taking the most probable ones.
        temperature: Divides the logits; only with ``do_sample``.
        top_p: Sample from the smallest set of tokens with this total probability; only with ``do_sample``.
        length_penalty: Exponent of the length by which beam scores are divided.
        repetition_penalty: Divides the logits of tokens that were generated before; 1 disables it.
        no_repeat_ngram_size: Forbids repeated n-grams of this size; 0 disables it.

    Raises:
        ValueError: If a value is out of range.
    """

    max_new_tokens: int = 30
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "num_beams": (self.num_beams >= 1, "1 or more"),
            "temperature": (
                0 < self.temperature < math.inf,
                "a number above 0. Set do_sample to false for no sampling",
            ),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "length_penalty": (math.isfinite(self.length_penalty), "a finite number; 0 divides by 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "a number above 0; 1 disables it"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "0 or more; 0 disables it"),
        }
        for name, (is_inside, expected) in ranges.items():
            if not is_inside:
                raise ValueError(f"GenerationSettings.{name} is {getattr(self, name)}; expected {expected}.")
