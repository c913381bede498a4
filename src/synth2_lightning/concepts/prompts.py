"""How a language model is asked for a caption."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from string import Formatter
from typing import Any

from synth2_lightning.types import ChatMessage, Concept, Prompt

_PLACES: tuple[set[str], ...] = (set(), {"name", "gloss"}, {"name", "gloss", "other", "other_gloss"})
_PAIRS = (("name", "gloss"), ("other", "other_gloss"))


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

    Raises:
        ValueError: If the request has other places than the number of concepts allows, or lacks a name.

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
    ) -> None:
        self.name = name
        self.version = version
        self.request = request
        self.system = system
        self.examples = tuple(examples)
        self.num_concepts = num_concepts
        if num_concepts not in range(len(_PLACES)):
            raise ValueError(f"{self._called()} got num_concepts={num_concepts}; expected 0, 1 or 2.")
        self._check_places()
        self._start = self._render_start()

    @property
    def template_id(self) -> str:
        """What records call the prompt: ``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    def render(self, concepts: Sequence[Concept]) -> Prompt:
        """Ask for a caption.

        Args:
            concepts: As many as ``num_concepts`` says.

        Raises:
            ValueError: If there are more or fewer.
        """
        if len(concepts) != self.num_concepts:
            raise ValueError(
                f"{self._called()} was given {len(concepts)} concepts ({[concept.name for concept in concepts]}); "
                f"expected {self.num_concepts}, as its num_concepts says."
            )
        return (*self._start, self._ask([(concept.name, concept.definition) for concept in concepts]))

    def provenance(self) -> dict[str, Any]:
        """Give the template's name and a fingerprint of all that it says."""
        said = [self.request, self.system, [asdict(example) for example in self.examples]]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return {"template": self.template_id, "num_concepts": self.num_concepts, "fingerprint": digest[:12]}

    def _render_start(self) -> Prompt:
        start = [ChatMessage("system", self.system)] if self.system else []
        for example in self.examples:
            said = [(example.name, example.definition), (example.other, example.other_definition)]
            start.append(self._ask(said[: self.num_concepts]))
            start.append(ChatMessage("assistant", example.caption))
        return tuple(start)

    def _ask(self, concepts: Sequence[tuple[str, str]]) -> ChatMessage:
        places: dict[str, str] = {}
        for (name, definition), (place, gloss) in zip(concepts, _PAIRS, strict=False):
            places |= {place: name, gloss: f" ({definition})" if definition else ""}
        return ChatMessage("user", self.request.format(**places))

    def _check_places(self) -> None:
        try:
            found = {place for _, place, _, _ in Formatter().parse(self.request) if place is not None}
        except ValueError as error:
            raise ValueError(
                f"The request of {self._called()} is {self.request!r}, which is no format string ({error}); write "
                "braces that are no places as {{ and }}."
            ) from error
        allowed = _PLACES[self.num_concepts]
        needed = allowed & {"name", "other"}
        if found - allowed or needed - found:
            raise ValueError(
                f"The request of {self._called()} has the places {sorted(found)}; for {self.num_concepts} concepts "
                f"expected {sorted(needed)}, and perhaps {sorted(allowed - needed)}. Correct the request, or "
                "num_concepts."
            )

    def _called(self) -> str:
        return f"PromptTemplate {self.template_id!r}"
