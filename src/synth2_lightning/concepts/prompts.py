"""How a language model is asked for a caption."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from string import Formatter
from typing import Any

from synth2_lightning.jsontext import has_surrogates
from synth2_lightning.types import ChatMessage, Concept, Prompt

_PLACES: tuple[set[str], ...] = (set(), {"name", "gloss"}, {"name", "gloss", "other", "other_gloss"})
_ARTICLES: tuple[set[str], ...] = (set(), {"a_name"}, {"a_name", "an_other"})
_NAMES = (("name", "a_name", "gloss"), ("other", "an_other", "other_gloss"))


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults by vars()
class PromptExample:
    """A caption as it is wanted, shown before the request.

    Args:
        caption: What the model would have answered.
        name: What it would have been asked for; empty where the template asks for nothing.
        definition: What tells it from others of that name.
        other: The second thing, where the template asks for two.
        other_definition: What tells that one from others.

    Example:
        >>> PromptExample(name="dog", caption="A dog catches a yellow frisbee in a park.").name
        'dog'
    """

    caption: str
    name: str = ""
    definition: str = ""
    other: str = ""
    other_definition: str = ""


class PromptTemplate:
    """A prompt with places for names, and the examples that go before.

    All that stands before the first place is the same in every prompt: a local model computes it once for all of them.
    Let names come as late as possible.

    Args:
        name: What records call the template.
        version: To be raised with every change: captions of different prompts are different captions.
        request: What the user says, with a place for the ``{name}``, and with two concepts one for the ``{other}``.
            ``{gloss}`` and ``{other_gloss}`` may follow: the definition in brackets after a space, or nothing where
            there is none.
        system: What the model is told about its task before; nothing if empty.
        examples: Earlier turns, asked by the same request.
        num_concepts: How many things a caption is asked for: 1; 2, which appear together; 0, for what the model likes.
        openings: Beginnings of the answer, one of which is drawn for each caption, for models that do not follow
            instructions: one that goes on from "A man holds an owl" does not define owls. Places as of the request, and
            ``{a_name}``, ``{an_other}`` for names with their articles. The caption holds the opening. Local models go
            on from it, and some servers; those that begin anew after it want a template without.

    Raises:
        ValueError: If the request has other places than the number of concepts allows, or lacks a name, or if a text
            holds half a character.

    Example:
        >>> template = PromptTemplate("plain", 1, "Caption a photograph of: {name}")
        >>> template.render([Concept("n02084071", "dog")])
        (ChatMessage(role='user', content='Caption a photograph of: dog'),)
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
        if num_concepts not in range(len(_PLACES)):
            raise ValueError(f"{self._called()} got num_concepts={num_concepts}; expected 0, 1 or 2.")
        if has_surrogates(json.dumps(self._list_texts(), ensure_ascii=False)):
            raise ValueError(
                f"{self._called()} holds half a character (a surrogate such as \\ud83d), which no encoding can write; "
                "expected whole characters. Write it as it is, or as \\U0001F415 in YAML."
            )
        self._check_places("request", self.request, _PLACES[num_concepts])
        for opening in self.openings:
            self._check_places("opening", opening, _PLACES[num_concepts] | _ARTICLES[num_concepts])
        self._start = self._render_start()

    @property
    def template_id(self) -> str:
        """What records call the prompt: ``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    def render(self, concepts: Sequence[Concept], seed: int = 0) -> Prompt:
        """Ask for a caption.

        Args:
            concepts: As many as ``num_concepts`` says.
            seed: Draws the opening, where there are some.

        Raises:
            ValueError: If there are more or fewer.
        """
        if len(concepts) != self.num_concepts:
            raise ValueError(
                f"{self._called()} was given {len(concepts)} concepts ({[concept.name for concept in concepts]}); "
                f"expected {self.num_concepts}, as its num_concepts says."
            )
        places = _fill_places([(concept.name, concept.definition) for concept in concepts])
        prompt = (*self._start, ChatMessage("user", self.request.format(**places)))
        if not self.openings:
            return prompt
        opening = self.openings[seed % len(self.openings)].format(**places)
        return (*prompt, ChatMessage("assistant", opening[0].upper() + opening[1:]))

    def provenance(self) -> dict[str, Any]:
        """Give the template's name and a fingerprint of all that it says."""
        digest = hashlib.sha256(json.dumps(self._list_texts(), sort_keys=True).encode()).hexdigest()
        return {"template": self.template_id, "num_concepts": self.num_concepts, "fingerprint": digest[:12]}

    def _list_texts(self) -> list[Any]:
        return [self.request, self.system, [asdict(example) for example in self.examples], self.openings]

    def _render_start(self) -> Prompt:
        start = [ChatMessage("system", self.system)] if self.system else []
        for example in self.examples:
            said = [(example.name, example.definition), (example.other, example.other_definition)]
            places = _fill_places(said[: self.num_concepts])
            start.append(ChatMessage("user", self.request.format(**places)))
            start.append(ChatMessage("assistant", example.caption))
        return tuple(start)

    def _check_places(self, what: str, text: str, allowed: set[str]) -> None:
        try:
            found = {place for _, place, _, _ in Formatter().parse(text) if place is not None}
        except ValueError as error:
            raise ValueError(
                f"The {what} of {self._called()} is {text!r}, which is no format string ({error}); write braces that "
                "are no places as {{ and }}."
            ) from error
        needed = allowed & {"name", "other"} if what == "request" else set()
        if found - allowed or needed - found:
            raise ValueError(
                f"The {what} of {self._called()} has the places {sorted(found)}; for {self.num_concepts} concepts "
                f"expected {sorted(needed)}, and perhaps {sorted(allowed - needed)}. Correct the {what}, or "
                "num_concepts."
            )

    def _called(self) -> str:
        return f"PromptTemplate {self.template_id!r}"


def _fill_places(concepts: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Give what stands in the places of names and definitions."""
    places: dict[str, str] = {}
    for (name, definition), (place, with_article, gloss) in zip(concepts, _NAMES, strict=False):
        article = "an" if name[:1].lower() in "aeiou" else "a"
        places |= {place: name, with_article: f"{article} {name}", gloss: f" ({definition})" if definition else ""}
    return places
