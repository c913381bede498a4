from collections.abc import Sequence
from unittest.mock import Mock

import pytest

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.concepts.sampling import UniformSampling
from synth2_lightning.datamodules.captions import record_seed
from synth2_lightning.datamodules.concepts import ConceptDataModule
from synth2_lightning.interfaces import HasProvenance, Skippable
from synth2_lightning.types import ChatMessage, Concept, PromptBatch, SampleInfo

REQUESTS = {0: "Anything.", 1: "Object: {name}", 2: "{name}, {other}"}


class Numbers(ListedConcepts):
    def __init__(self, size: int) -> None:
        super().__init__("numbers")
        self.size = size

    def read_concepts(self, excluded: object) -> list[Concept]:
        return [Concept(f"n{index}", f"number {index}") for index in range(self.size)]


def make(
    num_captions: int = 7, num_concepts: int = 1, size: int = 3, batch_size: int = 2, seed: int = 0
) -> ConceptDataModule:
    prompt = PromptTemplate("plain", 1, REQUESTS[num_concepts], num_concepts=num_concepts)
    data = ConceptDataModule(Numbers(size), prompt, num_captions, UniformSampling(), batch_size, seed)
    data.setup("predict")
    return data


def batches(data: ConceptDataModule, rank: int = 0, world_size: int = 1) -> Sequence[PromptBatch]:
    data.trainer = Mock(global_rank=rank, world_size=world_size)
    loader = data.predict_dataloader()
    found = list(loader)
    assert len(found) == len(loader)
    return found


def records(data: ConceptDataModule, world_size: int = 1) -> list[tuple[str, str, str, int | None]]:
    return [
        (sample.key, sample.class_name, prompt[-1].content, sample.seed)
        for rank in range(world_size)
        for batch in batches(data, rank, world_size)
        for sample, prompt in zip(batch.samples, batch.prompts, strict=True)
    ]


def test_a_batch_names_all_of_its_records() -> None:
    assert batches(make(1, size=1))[0] == PromptBatch(
        prompts=((ChatMessage("user", "Object: number 0"),),),
        samples=(SampleInfo("n0-0", "numbers", "number 0", record_seed(0, "n0-0")),),
        templates=("plain@1",),
    )


@pytest.mark.parametrize("num_concepts", [0, 1, 2])
@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 1), (2, 2), (1, 3), (4, 9)])
def test_each_record_comes_once_for_any_ranks_and_batches(batch_size: int, world_size: int, num_concepts: int) -> None:
    found = records(make(7, num_concepts, batch_size=batch_size), world_size)
    assert found == records(make(7, num_concepts))
    assert len({key for key, *_ in found}) == len({seed for *_, seed in found}) == 7


def test_keys_number_the_captions_of_a_concept() -> None:
    found = records(make(6))
    assert [key[-2:] for key, *_ in found] == ["-0"] * 3 + ["-1"] * 3
    assert sorted(key for key, *_ in found) == ["n0-0", "n0-1", "n1-0", "n1-1", "n2-0", "n2-1"]
    assert all(content == f"Object: {class_name}" for _, class_name, content, _ in found)


@pytest.mark.parametrize("num_concepts", [0, 1, 2])
def test_more_captions_begin_with_those_that_there_were(num_concepts: int) -> None:
    assert records(make(20, num_concepts))[:7] == records(make(7, num_concepts))


def test_two_concepts_are_never_one() -> None:
    for _, class_name, content, _ in records(make(40, num_concepts=2, size=2)):
        first, second = class_name.split(" + ")
        assert first != second
        assert content == f"{first}, {second}"


def test_no_concept_is_numbered_on() -> None:
    assert records(make(2, num_concepts=0)) == [
        (f"free-{number}", "", "Anything.", record_seed(0, f"free-{number}")) for number in range(2)
    ]


def test_remaining_records_are_distributed_again() -> None:
    whole = records(make(6))
    data = make(6)
    data.skip({("numbers", whole[0][0]), ("numbers", whole[4][0]), ("others", whole[1][0])})
    assert records(data, world_size=2) == [whole[1], whole[2], whole[3], whole[5]]
    data.skip({("numbers", key) for key, *_ in whole})
    assert batches(data) == []


def test_seeds_give_different_samples() -> None:
    assert [name for _, name, *_ in records(make(30, size=30))] != [
        name for _, name, *_ in records(make(30, size=30, seed=1))
    ]


def test_it_provides_what_a_resumed_prediction_requests() -> None:
    data = make(seed=5)
    assert isinstance(data, Skippable)
    assert isinstance(data, HasProvenance)
    provenance = data.provenance()
    assert provenance == make(num_captions=9, batch_size=5, seed=5).provenance()
    assert provenance["seed"] == 5
    assert provenance["sampler"] == {"sampler": "uniform"}
    assert provenance["prompt"]["template"] == "plain@1"
    assert provenance["concepts"]["num_concepts"] == 3


def test_other_stages_are_refused() -> None:
    prompt = PromptTemplate("plain", 1, REQUESTS[1])
    with pytest.raises(ValueError, match=r"ConceptDataModule.*'fit'.*captions"):
        ConceptDataModule(Numbers(1), prompt, 1, UniformSampling()).setup("fit")


def test_two_concepts_cannot_be_sampled_from_one() -> None:
    with pytest.raises(ValueError, match=r"'plain@1'.*'numbers'.*'number"):
        make(num_concepts=2, size=1)


@pytest.mark.parametrize("name", ["num_captions", "batch_size"])
def test_numbers_below_one_are_refused(name: str) -> None:
    prompt = PromptTemplate("plain", 1, REQUESTS[1])
    arguments = {"num_captions": 1, "batch_size": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"ConceptDataModule got {name}=0; expected 1 or more"):
        ConceptDataModule(Numbers(1), prompt, sampler=UniformSampling(), **arguments)


@pytest.mark.parametrize(("num_concepts", "num_names"), [(0, 0), (1, 1), (None, 2)])
def test_one_template_has_any_number_of_names(num_concepts: int | None, num_names: int) -> None:
    prompt = PromptTemplate("words", 1, "Words: {names}", num_concepts=2)
    data = ConceptDataModule(Numbers(2), prompt, 1, UniformSampling(), num_concepts=num_concepts)
    data.setup("predict")
    ((_, class_name, text, _),) = records(data)
    assert class_name.count("number") == num_names
    assert text == f"Words: {class_name}"
    assert data.provenance()["prompt"]["num_concepts"] == num_names


@pytest.mark.parametrize(("request_", "num_concepts"), [("{name}", 0), ("{names}", 2), ("{names}", -1)])
def test_a_number_that_the_template_does_not_take_is_refused(request_: str, num_concepts: int) -> None:
    prompt = PromptTemplate("p", 1, request_)
    with pytest.raises(ValueError, match=rf"num_concepts={num_concepts}; expected [01] to 1.*'p@1'"):
        ConceptDataModule(Numbers(2), prompt, 1, UniformSampling(), num_concepts=num_concepts)
