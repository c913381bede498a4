"""Prompt templates for caption generation."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from string import Formatter
from typing import Any

from synth2_lightning.io.json_text import has_surrogates
from synth2_lightning.types import CLASS_NAME_SEPARATOR, ChatMessage, Concept, Prompt

_PLACEHOLDERS: tuple[set[str], ...] = (set(), {"name", "gloss"}, {"name", "gloss", "other", "other_gloss"})
_ARTICLES: tuple[set[str], ...] = (set(), {"a_name"}, {"a_name", "an_other"})
_NAMES = (("name", "a_name", "gloss"), ("other", "an_other", "other_gloss"))


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults with vars()
class PromptExample:
    """Few-shot example of a prompt template.

    Args:
        caption: The assistant's message.
        name: Name of the concept; empty for templates without concepts.
        definition: Definition of the concept.
        other: Name of the second concept, for templates with two.
        other_definition: Definition of the second concept.
    """

    caption: str
    name: str = ""
    definition: str = ""
    other: str = ""
    other_definition: str = ""


class PromptTemplate:
    """Prompt with placeholders for concepts, after optional few-shot examples.

    The text before the last user message is the same in every prompt, and a local model processes it once.

    Args:
        name: Name of the template in records.
        version: Version in records; increase it with every change of the texts.
        request: User message with the placeholder ``{name}``, and ``{other}`` for a second concept. ``{gloss}`` and
            ``{other_gloss}`` are replaced by a space and the definition in parentheses, or by nothing if there is no
            definition. Or with the single placeholder ``{names}``, for any number of concepts up to ``num_concepts``:
            their names, joined by ``CLASS_NAME_SEPARATOR``.
        system: System message; omitted if empty.
        examples: Few-shot examples with the same request.
        num_concepts: Number of concepts per caption: 0, 1 or 2.
        openings: Starts of the answer, one of which is selected per caption, for models that do not follow
            instructions: a continuation of "A man holds an owl" does not define owls. Placeholders are those of the
            request, and ``{a_name}`` and ``{an_other}`` for names with articles. The caption includes the opening.
            Local models and some servers continue the opening; use a template without openings for other servers.

    Raises:
        ValueError: If the placeholders do not match ``num_concepts``, or a text contains a lone surrogate.

    Example:
        >>> template = PromptTemplate("plain", 1, "Caption a photo of: {name}")
        >>> template.render([Concept("n02084071", "dog")])
        (ChatMessage(role='user', content='Caption a photo of: dog'),)
    """

    def __init__(
        self,
        name: str,
        version: int,
        request: str,
        system: str = "",
        examples: Sequence[PromptExample] = (),
        num_concepts: int = 1,
        openings: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.version = version
        self.request = request
        self.system = system
        self.examples = tuple(examples)
        self.num_concepts = num_concepts
        self.openings = tuple(openings)
        if num_concepts not in range(len(_PLACEHOLDERS)):
            raise ValueError(f"{self._called()} got num_concepts={num_concepts}; expected 0, 1 or 2.")
        if has_surrogates(json.dumps(self._list_texts(), ensure_ascii=False)):
            raise ValueError(
                f"{self._called()} contains a lone surrogate such as \\ud83d, which cannot be encoded; expected whole "
                "characters. Write the character itself, or an escape such as \\U0001F415 in YAML."
            )
        self._check_placeholders("request", self.request, _PLACEHOLDERS[num_concepts])
        for opening in self.openings:
            self._check_placeholders("opening", opening, _PLACEHOLDERS[num_concepts] | _ARTICLES[num_concepts])
        self._start = self._render_start()

    @property
    def template_id(self) -> str:
        """Identifier of the template in records: ``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def takes_fewer(self) -> bool:
        """Whether a prompt may have fewer than ``num_concepts`` concepts: ``{names}`` in the request, no openings."""
        return _find_fields(self.request) == {"names"} and not self.openings

    def render(self, concepts: Sequence[Concept], seed: int = 0) -> Prompt:
        """Return the prompt for a caption.

        Args:
            concepts: Concepts of the caption, ``num_concepts`` of them; or fewer, if it :attr:`takes_fewer`.
            seed: Selects the opening.

        Raises:
            ValueError: If the number of concepts is not that of the template.
        """
        if len(concepts) > self.num_concepts or (len(concepts) < self.num_concepts and not self.takes_fewer):
            raise ValueError(
                f"{self._called()} got {len(concepts)} concepts ({[concept.name for concept in concepts]}); expected "
                f"num_concepts={self.num_concepts}."
            )
        values = _fill_placeholders([(concept.name, concept.definition) for concept in concepts])
        prompt = (*self._start, ChatMessage("user", self.request.format(**values)))
        if not self.openings:
            return prompt
        opening = self.openings[seed % len(self.openings)].format(**values)
        return (*prompt, ChatMessage("assistant", opening[:1].upper() + opening[1:]))

    def provenance(self) -> dict[str, Any]:
        """Return the template's identifier, its number of concepts and a fingerprint of its texts."""
        digest = hashlib.sha256(json.dumps(self._list_texts(), sort_keys=True).encode()).hexdigest()
        return {"template": self.template_id, "num_concepts": self.num_concepts, "fingerprint": digest[:12]}

    def _list_texts(self) -> list[object]:
        return [self.request, self.system, [asdict(example) for example in self.examples], self.openings]

    def _render_start(self) -> Prompt:
        start = [ChatMessage("system", self.system)] if self.system else []
        for example in self.examples:
            concepts = [(example.name, example.definition), (example.other, example.other_definition)]
            values = _fill_placeholders(concepts[: self.num_concepts])
            start.append(ChatMessage("user", self.request.format(**values)))
            start.append(ChatMessage("assistant", example.caption))
        return tuple(start)

    def _check_placeholders(self, what: str, text: str, allowed: set[str]) -> None:
        try:
            found = _find_fields(text)
            is_plain = all(not form and not conversion for _, _, form, conversion in Formatter().parse(text))
        except ValueError as error:
            raise ValueError(
                f"The {what} of {self._called()} is {text!r}, which is not a format string ({error}); expected literal "
                "braces as {{ and }}."
            ) from error
        if not text.strip() or not is_plain:
            raise ValueError(
                f"The {what} of {self._called()} is {text!r}; expected a text, with placeholders of a name only."
            )
        if what == "request" and found == {"names"}:
            return
        needed = allowed & {"name", "other"} if what == "request" else set()
        if found - allowed or needed - found:
            raise ValueError(
                f"The {what} of {self._called()} has placeholders {sorted(found)}; for {self.num_concepts} concepts "
                f"expected {sorted(needed)}, and optionally {sorted(allowed - needed)}. Correct the {what}, or "
                "num_concepts."
            )

    def _called(self) -> str:
        return f"PromptTemplate {self.template_id!r}"


def _find_fields(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


def _fill_placeholders(concepts: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the values of the placeholders."""
    values = {"names": CLASS_NAME_SEPARATOR.join(name for name, _ in concepts if name)}
    for (name, definition), (field, with_article, gloss) in zip(concepts, _NAMES, strict=False):
        article = "an" if name[:1].lower() in "aeiou" else "a"
        values |= {field: name, with_article: f"{article} {name}", gloss: f" ({definition})" if definition else ""}
    return values
