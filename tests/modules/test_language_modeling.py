from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.optim import AdamW

from synth2_lightning.callbacks.text_samples import TextSamplesCallback
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.datamodules.language_modeling import LanguageModelingDataModule
from synth2_lightning.decoders.language_model import LoraSettings, PretrainedLanguageModel
from synth2_lightning.decoders.prompted import PromptedCausalModel
from synth2_lightning.generators.language_model import LanguageModelCaptionGenerator
from synth2_lightning.modules.language_modeling import LanguageModelingModule, select_concepts
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.photo_captions import PhotoCaptions
from synth2_lightning.types import Concept

Save = Callable[..., str]
TEMPLATE = PromptTemplate("words", 1, "a {names}", "a picture of one", num_concepts=2)
CONCEPTS = [Concept(name, name) for name in ("dog", "ball", "lawn")]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


def make_module(folder: str, lr: float = 1e-2, **settings: Any) -> LanguageModelingModule:
    parts = settings or {"lora": LoraSettings(r=4)}
    language_model = PromptedCausalModel(PretrainedLanguageModel(folder, **parts))
    return LanguageModelingModule(language_model, TEMPLATE, optimizer=partial(AdamW, lr=lr))


def make_data() -> LanguageModelingDataModule:
    return LanguageModelingDataModule(PhotoCaptions(ScenesSource("train", 40)), 0.2, batch_size=8)


def make_trainer(folder: Path, max_steps: int, **settings: Any) -> Trainer:
    settings = {"logger": False, "enable_checkpointing": False} | settings
    return Trainer(
        default_root_dir=folder,
        max_steps=max_steps,
        max_epochs=-1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        **settings,
    )


def test_a_fit_learns_and_writes_a_model_that_generates(save_model: Save, tmp_path: Path) -> None:
    module, data = make_module(save_model("llama")), make_data()
    trainer = make_trainer(tmp_path, 20, callbacks=[TextSamplesCallback(4)])
    (before,) = trainer.validate(module, data, verbose=False)
    trainer.fit(module, data)
    after = trainer.callback_metrics
    assert after["val/loss"] < before["val/loss"] - 1
    assert after["val/perplexity"] == pytest.approx(float(after["val/loss"].exp()), rel=1e-5)
    assert 0 < after["train/with_concepts"] <= 1
    generator = LanguageModelCaptionGenerator(str(tmp_path / "language_model"), dtype="float32", num_rows=2)
    generator.load()
    prompts = [TEMPLATE.render([Concept("1", "circle")])]
    (answer,) = generator.generate(prompts, [0])
    assert len(answer.text.split()) > 1
    assert (tmp_path / "samples" / "step=20.tsv").is_file()


def test_a_fit_resumes_exactly(save_model: Save, tmp_path: Path) -> None:
    folder, states = save_model("llama"), []
    for name, steps in (("whole", (7,)), ("halves", (3, 7))):
        for limit in steps:
            torch.manual_seed(limit if name == "halves" and limit == 7 else 0)  # resumed with another seed
            module = make_module(folder)
            trainer = make_trainer(tmp_path / name, limit)
            path = tmp_path / name / "last.ckpt"
            trainer.fit(module, make_data(), ckpt_path=path if path.exists() else None, weights_only=True)
            trainer.save_checkpoint(path)
        assert trainer.global_step == 7
        states.append(module.state_dict())
    assert len(states[0]) > 4
    assert all("lora_" in name for name in states[0])
    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())


def test_a_checkpoint_of_a_script_loads_with_its_parts(save_model: Save, tmp_path: Path) -> None:
    folder = save_model("llama")
    module = make_module(folder)
    trainer = make_trainer(tmp_path, 1)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    source = PromptedCausalModel(PretrainedLanguageModel(folder, lora=LoraSettings(r=4)))
    loaded = LanguageModelingModule.load_from_checkpoint(tmp_path / "last.ckpt", language_model=source, prompt=TEMPLATE)
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in module.state_dict().items())


def test_each_number_and_each_order_of_concepts_occurs() -> None:
    numbers = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0)).tolist()
    found = Counter(
        tuple(concept.name for concept in select_concepts(CONCEPTS, uniform, most=2, dropout=0.1))
        for uniform in numbers
    )
    assert len(found) == 1 + 3 + 6
    assert found[()] == pytest.approx(300, rel=0.2)
    assert sum(count for names, count in found.items() if len(names) == 1) == pytest.approx(1350, rel=0.1)
    assert max(count for names, count in found.items() if len(names) == 2) < 300


@pytest.mark.parametrize(("most", "expected"), [(0, {0}), (1, {1}), (2, {1, 2})])
def test_the_template_limits_the_number_of_concepts(most: int, expected: set[int]) -> None:
    numbers = torch.rand(100, 4, generator=torch.Generator().manual_seed(0)).tolist()
    assert {len(select_concepts(CONCEPTS, uniform, most, dropout=0.0)) for uniform in numbers} == expected
    assert {len(select_concepts(CONCEPTS[:1], uniform, 2, dropout=0.0)) for uniform in numbers} == {1}
    assert {len(select_concepts([], uniform, 2, dropout=0.0)) for uniform in numbers} == {0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": PromptTemplate("p", 1, "{name}")}, r"'p@1'.*'\{name\}'.*\{names\}"),
        ({"prompt": PromptTemplate("p", 1, "{names}", openings=["A"])}, r"'p@1'.*1 openings.*no openings"),
        ({"concept_dropout": 1.5}, r"concept_dropout=1\.5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "language_model": PromptedCausalModel(PretrainedLanguageModel("some/model")),
        "prompt": TEMPLATE,
    } | changes
    with pytest.raises(ValueError, match=message):
        LanguageModelingModule(**arguments)
