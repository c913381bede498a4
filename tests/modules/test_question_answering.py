from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.modules.question_answering import QuestionAnsweringModule
from synth2_lightning.testing import TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import GenerationSettings, ImageTextBatch


def questions(seed: int) -> ImageTextBatch:
    """Return a batch with two kinds of questions in turn, "is it bright" and "how is it"."""
    batch = tiny_batch(16, seed=seed)
    prompts = ["is it bright" if row % 2 else "how is it" for row in range(len(batch))]
    replies = {("is it bright", True): "yes", ("is it bright", False): "no", ("how is it", True): "bright"}
    answers = tuple(
        replies.get((question, "bright" in caption), "dark")
        for question, caption in zip(prompts, batch.captions, strict=True)
    )
    references = tuple((answer,) for answer in answers)
    return replace(batch, captions=answers, references=references, prompts=tuple(prompts))


def answering_module(folder: Path, **settings: Any) -> QuestionAnsweringModule:
    words = [question for seed in range(4) for question in questions(seed).prompts] + [
        "question : answer yes no dark"
    ] * 5
    build_vocabulary(words, 1, folder)
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    config |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    decoder = PrefixDecoder(NewLanguageModel(config, str(folder)))
    module = QuestionAnsweringModule(
        TinyImageTokenizer(), TinyResampler(), decoder, generation=GenerationSettings(max_new_tokens=2), **settings
    )
    module.configure_model()
    return module


def test_the_new_head_learns_to_answer_questions(tmp_path: Path) -> None:
    module = answering_module(tmp_path)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=5e-3)
    for step in range(100):
        optimizer.zero_grad()
        module.training_step(questions(seed=step), step).backward()
        optimizer.step()
    module.eval()
    held_out = questions(seed=999)
    answers = module.predict_step(held_out, 0)["captions"]
    assert answers == held_out.captions
    assert {"yes", "no", "bright", "dark"} == set(answers)


def test_a_batch_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 \w+ and 0 questions"):
        answering_module(tmp_path).training_step(tiny_batch(), 0)


def test_a_prompt_without_a_place_for_the_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"question_prompt.*answer:.*\{question\}"):
        answering_module(tmp_path, question_prompt="answer:")


@pytest.mark.parametrize(
    "prompt", ["{{question}}", "{question} {context}", "{question!r}", "{question:>9}", "{question"]
)
def test_a_prompt_with_anything_but_the_question_is_refused(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(ValueError, match=r"question_prompt.*literal braces"):
        answering_module(tmp_path, question_prompt=prompt)
