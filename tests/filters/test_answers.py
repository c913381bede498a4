import time

import pytest

from synth2_lightning.filters.answers import AnswerFilter, read_caption
from synth2_lightning.types import CaptionRecord

CAPTION = "A red kettle stands on a table."
THOUGHT = "Okay, so maybe a kettle, or two."
HARMONY = f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"

WITH_CAPTION = {
    "nothing around it": CAPTION,
    "tags opened and closed": f"<think>\n{THOUGHT}\n</think>\n\n{CAPTION}",
    "tag opened by the template": f"{THOUGHT}\n</think>\n\n{CAPTION}",
    "empty tags": f"<think>\n\n</think>\n\n{CAPTION}",
    "nested tags": f"<think>a <think>b</think> c</think>{CAPTION}",
    "a tag mentioned inside": f"<think>I shall close <think> soon.</think>{CAPTION}",
    "several": f"<think>{THOUGHT}</think>\n<think>{THOUGHT}</think>{CAPTION}",
    "more of it, cut, behind": f"<think>{THOUGHT}</think>{CAPTION}<think>Or",
    "capital tags": f"<THINK>{THOUGHT}</THINK>{CAPTION}",
    "thinking": f"<thinking>{THOUGHT}</thinking>\n{CAPTION}",
    "reasoning": f"<reasoning>{THOUGHT}</reasoning>{CAPTION}",
    "thought": f"<thought>{THOUGHT}</thought>{CAPTION}",
    "Seed": f"<seed:think>{THOUGHT}</seed:think>{CAPTION}",
    "Magistral": f"[THINK]{THOUGHT}[/THINK]{CAPTION}",
    "Magistral's template": f"{THOUGHT}[/THINK]{CAPTION}",
    "Harmony": f"{HARMONY}<|channel|>final<|message|>{CAPTION}<|return|>",
    "Harmony with a format": f'{HARMONY}<|channel|>final <|constrain|>json<|message|>{{"caption": "{CAPTION}"}}',
    "Harmony without its tokens": f"analysis{THOUGHT}assistantfinal{CAPTION}",
    "OpenThinker": f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|><|begin_of_solution|>{CAPTION}<|end_of_solution|>",
    "Cohere": f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{CAPTION}<|END_RESPONSE|>",
    "Gemma": f"<|channel>thought\n{THOUGHT}<channel|>{CAPTION}",
    "a tag with attributes": f'<think effort="low">{THOUGHT}</think>{CAPTION}',
    "answer tags": f"<think>{THOUGHT}</think><answer>{CAPTION}</answer>",
    "escaped tags": f"&lt;think&gt;{THOUGHT}&lt;/think&gt;{CAPTION}",
    "a label": f"Thought: {THOUGHT}\nFinal answer: {CAPTION}",
    "bold labels": f"**Reasoning:** {THOUGHT}\n\n**Answer:** {CAPTION}",
    "a fence": f"```thinking\n{THOUGHT}\n```\n{CAPTION}",
    "JSON": f'{{"caption": "{CAPTION}"}}',
    "JSON in a fence": f'Sure!\n```json\n{{"Caption": "{CAPTION}"}}\n```\nHere you are.',
    "JSON after reasoning": f'<think>{{"caption": "no"}}</think>{{"caption": "{CAPTION}"}}',
    "JSON with reasoning": f'{{"reasoning": "{THOUGHT}", "caption": "{CAPTION}"}}',
    "JSON in a list": f'[{{"caption": "{CAPTION}"}}]',
    "JSON in JSON": f'{{"result": {{"caption": "{CAPTION}"}}}}',
    "JSON of Python": f"{{'caption': '{CAPTION}'}}",
    "JSON that was cut": f'{{"caption": "{CAPTION}',
    "parts as JSON": f'[{{"type": "thinking", "thinking": "{THOUGHT}"}}, {{"type": "text", "text": "{CAPTION}"}}]',
    "a plain fence": f"```\n{CAPTION}\n```",
    "im_end": f"{CAPTION}<|im_end|>",
    "</s>": f"<s>{CAPTION}</s>",
    "endoftext": f"{CAPTION}<|endoftext|>{THOUGHT}",
    "eos": f"{CAPTION}<eos>",
    "end_of_turn": f"<start_of_turn>model\n{CAPTION}<end_of_turn>\n",
    "eot_id": f"<|start_header_id|>assistant<|end_header_id|>\n\n{CAPTION}<|eot_id|>",
    "another turn": f"<|im_start|>assistant\n{CAPTION}<|im_end|>\n<|im_start|>user\n{THOUGHT}",
    "DeepSeek": f"{CAPTION}<\uff5cend\u2581of\u2581sentence\uff5c>",
    "an empty tag": f"<think/>{CAPTION}",
    "an empty tag with a blank": f"<think />\n\n{CAPTION}",
    "tags with blanks": f"< think >{THOUGHT}</ think >{CAPTION}",
    "square brackets": f"[thinking]{THOUGHT}[/thinking]{CAPTION}",
    "Kimi": f"◁think▷{THOUGHT}◁/think▷{CAPTION}",
    "MedGemma": f"<unused94>thought\n{THOUGHT}<unused95>{CAPTION}",
    "a page's details": f'<details type="reasoning" open>\n<summary>A</summary>{THOUGHT}</details>\n{CAPTION}',
    "a page's summary": f"<details><summary>Thinking</summary>{THOUGHT}</details>{CAPTION}",
    "Chinese tags": f"<思考>{THOUGHT}</思考>{CAPTION}",
    "Chinese labels": f"思考\uff1a{THOUGHT}\n\n答案\uff1a{CAPTION}",
    "Granite": f"Here is my thought process: {THOUGHT}\n\nHere is my response: {CAPTION}",
    "a final label alone": f"{THOUGHT}\n\n**Final Answer:** {CAPTION}",
    "Harmony without its tokens, in lines": f"analysis\n\n{THOUGHT}\n\nassistantfinal\n\n{CAPTION}",
    "GLM": f"<think>{THOUGHT}</think><|begin_of_box|>{CAPTION}<|end_of_box|>",
    "a box": f"\\boxed{{\\text{{{CAPTION}}}}}",
    "fences in fences": f'```json\n```\n{{"caption": "{CAPTION}"}}\n```\n```',
    "JSON of a list alone": f'["{CAPTION}"]',
    "JSON in a string": f'"{{\\"caption\\": \\"{CAPTION}\\"}}"',
    "JSON with a longer name": f'{{"reasoning": "{THOUGHT}", "final_answer": "{CAPTION}"}}',
    "JSON with a name of JavaScript": f'{{"thoughtText": "{THOUGHT}", "imageCaption": "{CAPTION}"}}',
    "a call": f'<tool_call>\n{{"name": "write", "arguments": {{"caption": "{CAPTION}"}}}}\n</tool_call>',
    "a call whose arguments are JSON": f'{{"name": "write", "arguments": "{{\\"caption\\": \\"{CAPTION}\\"}}"}}',
    "HTML": f"<div><p><b>{CAPTION}</b></p></div>",
    "XML": f'<?xml version="1.0"?>\n<caption>{CAPTION}</caption>',
    "an end that was cut": f"{CAPTION}<|im_end",
    "invisible characters": f"\ufeff{CAPTION}\u200b",
    "control characters": f"\x1b{CAPTION}\x00",
}
WITHOUT = {
    "nothing": "",
    "blanks": " \n",
    "a tag": "<think>",
    "cut": f"<think>{THOUGHT}",
    "only reasoning": f"<think>{THOUGHT}</think>",
    "reasoning and an end": f"{THOUGHT}</think> <|im_end|>",
    "cut, other tags": f"[THINK]{THOUGHT}",
    "Harmony, cut": f"<|channel|>analysis<|message|>{THOUGHT}",
    "Harmony without its tokens, cut": f"analysis{THOUGHT}",
    "a label without an answer": f"Thought: {THOUGHT}",
    "an end": "<|im_end|>",
    "an empty object": "{}",
    "an empty caption": '{"caption": ""}',
    "an invisible character": "\u200b",
    "an object of reasoning alone": f'{{"reasoning": "{THOUGHT}"}}',
    "an object of an error": '{"error": "overloaded"}',
    "a call without arguments": '<tool_call>{"name": "look"}</tool_call>',
    "an object of other fields": '{"color": "red", "count": 3}',
}


@pytest.mark.parametrize("kind", WITH_CAPTION)
def test_the_caption_is_read_out_of_an_answer(kind: str) -> None:
    assert read_caption(WITH_CAPTION[kind]) == CAPTION


@pytest.mark.parametrize("kind", WITHOUT)
def test_an_answer_without_a_caption_is_rejected(kind: str) -> None:
    verdict = AnswerFilter().judge_one(CaptionRecord("a", WITHOUT[kind]))
    assert verdict.reason == ("reasoning without an answer" if WITHOUT[kind].strip() else "empty answer")
    assert verdict.caption == WITHOUT[kind]


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A cat &amp; a dog.", "A cat & a dog."),
        ("It&#39;s &quot;red&quot; &amp;amp; old.", 'It\'s "red" & old.'),
        ("AT&T; R&D &nothing", "AT&T; R&D &nothing"),
        ('{"caption": "A \\"stop\\" sign \\ud83d"}', 'A "stop" sign \ufffd'),
        ("half \ud83d a pair", "half \ufffd a pair"),
        ('"A dog."', '"A dog."'),
        ("A [sic] {dog} on a <b> tag", "A [sic] {dog} on a <b> tag"),
        ("A <unk> dog", "A dog"),
        ("A man lost in thought. Reasoning aside, a dog.", "A man lost in thought. Reasoning aside, a dog."),
        ('A sign that says ["OPEN"].', 'A sign that says ["OPEN"].'),
        ("A sign: 3 < 4 and 5 > 2.", "A sign: 3 < 4 and 5 > 2."),
        ("Details of a house, thinking of [text].", "Details of a house, thinking of [text]."),
        ("Final answer of a quiz on a screen.", "Final answer of a quiz on a screen."),
        ("Analysis of a painting: a man.", "Analysis of a painting: a man."),
    ],
)
def test_only_what_is_no_caption_is_removed(answer: str, caption: str) -> None:
    assert read_caption(answer) == caption


def test_cut_reasoning_without_a_tag_is_known_by_the_other_answers() -> None:
    cut = CaptionRecord("a", THOUGHT, is_complete=False)
    closed = CaptionRecord("b", f"{THOUGHT}</think>{CAPTION}")
    cut_caption = CaptionRecord("c", f"{THOUGHT}</think>{CAPTION}", is_complete=False)
    reasons = [verdict.reason for verdict in AnswerFilter().judge([cut, closed, cut_caption])]
    assert reasons == ["reasoning without an answer", "", ""]
    assert [verdict.reason for verdict in AnswerFilter().judge([cut])] == [""]


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "amp;",
        "<think>",
        "```",
        "{",
        '{"a":',
        "[",
        "<answer>",
        "<s>",
        "\\",
        "<|",
        "</think>",
        "<p>",
        "◁",
        "\n*",
        "\n[",
        "< ",
        "<p ",
        "\\boxed{",
    ],
)
def test_a_large_answer_takes_no_long_time(piece: str) -> None:
    start = time.perf_counter()
    read_caption(f'&{{"caption": "{piece * (50_000 // len(piece))}')
    read_caption(piece * (50_000 // len(piece)))
    assert time.perf_counter() - start < 10  # it takes fractions of a second; in quadratic time, many minutes
