"""Concepts, prompts, generated captions and the verdicts of filters."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One caption to synthesize an image from.

    Args:
        key: The record's id, the same in every run.
        caption: The text.
        class_name: What the caption was written for; empty where nobody said.
        is_cut: Whether its language model was stopped before it had ended.

    Example:
        >>> CaptionRecord("7", "a red circle").class_name
        ''
    """

    key: str
    caption: str
    class_name: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Concept:
    """What a caption is asked for.

    Args:
        key: Its id, such as a WordNet synset; no other concept of its source has it.
        name: What people call it: one lemma, with spaces.
        definition: What tells it from others of that name; empty where nobody said.
        branch: The part of the world that it belongs to, such as ``"animal"``; empty where nobody said.
        weight: How common it is beside the others of its source, above 0; a count, or whatever its source says.

    Example:
        >>> Concept("n02084071", "dog", branch="animal").definition
        ''
    """

    key: str
    name: str
    definition: str = ""
    branch: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of what a language model is given; the names are those of the chat interfaces of all servers.

    Example:
        >>> ChatMessage("user", "dog").role
        'user'
    """

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = tuple[ChatMessage, ...]
"""What a language model is given to write one caption."""


CLASS_NAME_SEPARATOR = " + "
"""Between the class names of a caption that was asked for several."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model answered to one prompt.

    Args:
        text: The answer as it came, preambles and refusals included.
        finish_reason: Why it ended: ``"stop"`` where the model said so, ``"length"`` where it was cut, or the server's.
        num_prompt_tokens: Tokens of the prompt.
        num_tokens: Tokens of the answer.

    Example:
        >>> Completion("A dog runs.", "stop", 80, 5).finish_reason
        'stop'
    """

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says of a caption.

    Args:
        caption: The caption, cleaned where the filter cleans.
        reason: Why it is rejected; empty where it may stay.

    Example:
        >>> Verdict("A dog runs.").reason
        ''
    """

    caption: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults by vars()
class GenerationSettings:
    """How captions are decoded; the names and meanings are those of transformers' ``generate``.

    Args:
        max_new_tokens: Most tokens that a caption may have.
        num_beams: Width of the beam search; 1 is greedy decoding, or sampling where ``do_sample``.
        do_sample: Draw tokens instead of taking the likeliest.
        temperature: Divides the logits where ``do_sample``.
        top_p: Keep the smallest set of tokens with this probability where ``do_sample``.
        length_penalty: Exponent of the length by which beam scores are divided.
        repetition_penalty: Divides the logits of tokens that were said before; 1 is none.
        no_repeat_ngram_size: No n-gram of this size twice; 0 is no such rule.

    Raises:
        ValueError: If a count is below one.

    Example:
        >>> GenerationSettings(num_beams=3).num_beams
        3
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
        """Refuse counts that decode nothing."""
        for name in ("max_new_tokens", "num_beams"):
            if getattr(self, name) < 1:
                raise ValueError(f"GenerationSettings.{name} is {getattr(self, name)}; expected 1 or more.")
