import os
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.concepts.prompts import PromptExample, PromptTemplate
from synth2_lightning.types import ChatMessage, Concept

DOG, BUS = Concept("n1", "dog", "a pet"), Concept("n2", "bus")
SHIPPED = sorted((run_file_folder() / "prompts").glob("*.yaml"))


def test_examples_are_formatted_like_the_request() -> None:
    template = PromptTemplate(
        "few-shot",
        2,
        "Object: {name}{gloss}",
        "Describe.",
        [PromptExample(name="cat", definition="a pet", caption="A cat.")],
    )
    assert template.render([DOG]) == (
        ChatMessage("system", "Describe."),
        ChatMessage("user", "Object: cat (a pet)"),
        ChatMessage("assistant", "A cat."),
        ChatMessage("user", "Object: dog (a pet)"),
    )
    assert template.render([BUS])[-1].content == "Object: bus"
    assert template.template_id == "few-shot@2"


def test_two_concepts_and_none() -> None:
    two = PromptTemplate(
        "two",
        1,
        "{name}{gloss} and {other}{other_gloss}",
        examples=[PromptExample(name="a", other="b", caption="c")],
        num_concepts=2,
    )
    assert [message.content for message in two.render([BUS, DOG])] == ["a and b", "c", "bus and dog (a pet)"]
    free = PromptTemplate("free", 1, "Describe {{anything}}.", num_concepts=0)
    assert free.render([]) == (ChatMessage("user", "Describe {anything}."),)


def test_any_number_of_names_in_one_template() -> None:
    template = PromptTemplate("words", 1, "Words: {names}", num_concepts=2)
    contents = [template.render(concepts)[-1].content for concepts in ([], [DOG], [BUS, DOG])]
    assert contents == ["Words: ", "Words: dog", "Words: bus + dog"]
    assert template.takes_fewer
    assert not PromptTemplate("p", 1, "{name}").takes_fewer
    with pytest.raises(ValueError, match=r"'words@1'.*got 3 concepts"):
        template.render([DOG, BUS, DOG])


def test_examples_have_as_many_names_as_they_name() -> None:
    examples = [PromptExample(name="a", caption="c"), PromptExample(name="a", other="b", caption="d")]
    template = PromptTemplate("words", 1, "{names}", examples=examples, num_concepts=2)
    assert [message.content for message in template.render([])] == ["a", "c", "a + b", "d", ""]


def test_a_template_with_openings_has_a_fixed_number_of_concepts() -> None:
    template = PromptTemplate("p", 1, "{names}", openings=["A {name}"])
    assert [message.content for message in template.render([DOG])] == ["dog", "A dog"]
    with pytest.raises(ValueError, match=r"'p@1'.*got 0 concepts.*num_concepts=1"):
        template.render([])


def test_a_definition_with_braces_stays_as_it_is() -> None:
    assert PromptTemplate("p", 1, "{name}").render([Concept("k", "{other}")])[0].content == "{other}"


@pytest.mark.parametrize(
    ("num_concepts", "request_", "message"),
    [
        (1, "Describe it.", r"\[\].*\['name'\].*\['gloss'\]"),
        (1, "{name} {other}", r"'p@1'.*\['name', 'other'\].*\['name'\]"),
        (1, "{name} {definition}", r"has placeholders \['definition', 'name'\]"),
        (2, "{name}", r"\['name', 'other'\].*\['gloss', 'other_gloss'\]"),
        (0, "{name}", r"\b0 concepts\b.*\[\].*num_concepts"),
        (1, "{name", r"'{name'.*format string.*{{ and }}"),
        (1, "{name!r}", "placeholders of a name only"),
        (1, "{name:{name}}", "placeholders of a name only"),
        (3, "{name}", r"'p@1'.*num_concepts=3"),
        (1, "{name} {names}", r"\['name', 'names'\].*\['name'\]"),
    ],
)
def test_requests_that_do_not_fit_are_refused(num_concepts: int, request_: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptTemplate("p", 1, request_, num_concepts=num_concepts)


def test_another_number_of_concepts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'p@1'.*\['dog', 'bus'\].*\b1\b"):
        PromptTemplate("p", 1, "{name}").render([DOG, BUS])


def test_provenance_is_that_of_every_word() -> None:
    def fingerprint(**changes: Any) -> str:
        arguments: dict[str, Any] = {"request": "{name}", "system": "s", "examples": [PromptExample(caption="c")]}
        provenance = PromptTemplate("p", 1, **arguments | changes).provenance()
        assert (provenance["template"], provenance["num_concepts"]) == ("p@1", 1)
        return str(provenance["fingerprint"])

    changes: list[dict[str, Any]] = [{}, {"request": "{name}!"}, {"system": ""}, {"examples": []}]
    assert len({fingerprint(**change) for change in changes}) == 4
    assert fingerprint() == fingerprint()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_templates_are_read_and_begin_alike(path: os.PathLike[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PromptTemplate, "prompt")
    template = parser.instantiate_classes(parser.parse_args([f"--prompt={path}"])).prompt
    assert isinstance(template, PromptTemplate)
    prompts = [template.render(concepts[: template.num_concepts]) for concepts in ([DOG, BUS], [BUS, DOG])]
    asked = -2 if template.openings else -1
    assert prompts[0][:asked] == prompts[1][:asked]
    assert prompts[0][asked].content.startswith(template.request.partition("{")[0])
    # An answer whose opening names the object cannot be a refusal; models that were fine-tuned with a template do not
    # refuse.
    if template.num_concepts and not template.openings and not template.takes_fewer:
        assert "WRONG!" in template.system
        assert any(example.caption == "WRONG!" for example in template.examples)


def test_the_names_of_shipped_templates_differ() -> None:
    names = [yaml.safe_load(path.read_text())["init_args"]["name"] for path in SHIPPED]
    assert sorted(names) == ["class-based", "coco-style", "free", "small-model", "two-concepts", "words"]


def test_openings_are_sampled_by_the_seed_and_end_the_prompt() -> None:
    openings = ("{a_name} and", "the {name}", "a man holds {a_name}{gloss}")
    template = PromptTemplate("opened", 1, "{name}", openings=openings)
    prompts = [template.render([Concept("oak", "oak", "a tree")], seed) for seed in range(4)]
    assert [prompt[-1].role for prompt in prompts] == ["assistant"] * 4
    texts = [prompt[-1].content for prompt in prompts]
    assert texts == ["An oak and", "The oak", "A man holds an oak (a tree)", "An oak and"]
    assert all(prompt[:-1] == (ChatMessage("user", "oak"),) for prompt in prompts)
    pair = PromptTemplate("pair", 1, "{name}, {other}", num_concepts=2, openings=("{a_name} on {an_other}",))
    assert pair.render([DOG, Concept("iron", "iron")])[-1].content == "A dog on an iron"


def test_openings_are_part_of_the_fingerprint_and_are_checked() -> None:
    plain, opened = (PromptTemplate("plain", 1, "{name}", openings=some) for some in ((), ("{a_name}",)))
    assert plain.provenance() != opened.provenance()
    with pytest.raises(ValueError, match=r"'plain@1'.*\['an_other'\]"):
        PromptTemplate("plain", 1, "{name}", openings=("{an_other}",))


@pytest.mark.parametrize("opening", ["", " ", "{name!s}"])
def test_openings_that_cannot_be_written_are_refused(opening: str) -> None:
    with pytest.raises(ValueError, match=r"opening of PromptTemplate 'p@1'.*placeholders of a name only"):
        PromptTemplate("p", 1, "{name}", openings=(opening,))


def test_an_opening_may_be_empty_for_a_concept_without_a_definition() -> None:
    template = PromptTemplate("p", 1, "{name}", openings=("{gloss}",))
    assert template.render([Concept("x", "x")])[-1].content == ""
