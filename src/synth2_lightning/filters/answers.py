"""Extraction of the caption from a language model's raw answer."""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.interfaces import Judge
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.types import CaptionRecord, Verdict

_MAX_PASSES = 4  # wrappers and escapes may be nested; each pass takes linear time

_NAME = (
    r"(?:\w{1,20}:)?(?:think|thinking|thoughts?|reason|reasoning|analysis|reflection|scratchpad"
    r"|inner_monologue|思考|思考过程|推理)"
)
# <think> of DeepSeek and Qwen, <seed:think> of Seed-OSS, [THINK] of Magistral, <|begin_of_thought|> of OpenThinker,
# <|START_THINKING|> of Cohere, <|channel>thought of Gemma, ◁think▷ of Kimi, <unused94>thought of MedGemma, <details> of
# web interfaces.
_REASONING_TAG = re.compile(
    rf"(?P<empty><{_NAME}\s{{0,9}}/>)"
    rf"|(?P<open><\|?\s{{0,9}}{_NAME}(?:\s[^<>]{{0,200}})?\|?>|\[(?:THINK|THINKING|REASONING)\]|◁think▷"
    r"|<\|(?:begin_of_thought|START_THINKING)\|>|<\|channel>thought|<unused94>thought"
    r"|<details type=[^<>]{0,200}>|<details>\s{0,9}<summary>\s{0,9}(?:think|thought|reason)"
    r"|```(?:think|thinking|thought|reasoning)\b)"
    rf"|(?P<close><\|?\s{{0,9}}/\s{{0,9}}{_NAME}\s{{0,9}}\|?>|\[/(?:THINK|THINKING|REASONING)\]|◁/think▷"
    r"|<\|(?:end_of_thought|END_THINKING)\|>|<channel\|>|<unused95>|</details>)"
    r"|(?P<fence>```)",
    re.IGNORECASE,
)
# Harmony, the format of gpt-oss; without its special tokens, some servers return "analysis…assistantfinal…".
_CHANNEL = re.compile(
    r"<\|channel\|>\s{0,9}(\w{1,20})[^<]{0,99}(?:<\|constrain\|>[^<]{0,99})?<\|message\|>", re.IGNORECASE
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>", re.IGNORECASE)
_PLAIN_CHANNEL = re.compile(r"\A\s{0,9}(?:analysis|commentary)(?=[A-Z]|\s{0,9}\n)")
_PLAIN_FINAL = "assistantfinal"
# Reasoning after a label.
_LABEL = re.compile(
    r"\A[\s*#_]{0,9}(?:here is my |my )?"
    r"(?:chain of thought|thought process|thinking process|thoughts?|thinking|reasoning|思考过程|思考|推理)"
    r"[*_ ]{0,5}[:\uff1a]",
    re.IGNORECASE,
)
_ANSWER_LABEL = re.compile(
    r"(?:^|\n)[\s*#_]{0,9}(?:here is my |my |the )?(?:final )?"
    r"(?:answer|caption|response|output|description|最终答案|答案|回答|描述|标题)[*_ ]{0,5}[:\uff1a][*_]{0,3}",
    re.IGNORECASE,
)
_FINAL_LABEL = re.compile(
    r"\n[\s*#_]{0,9}(?:the )?final (?:answer|caption|response)[*_ ]{0,5}:[*_]{0,3}", re.IGNORECASE
)
_ANSWER_TAG = re.compile(
    r"<\|?(?:(?:final_)?(?:answer|caption|response|output)|begin_of_solution|START_RESPONSE)\|?>(.*?)"
    r"(?:<\|?/(?:final_)?(?:answer|caption|response|output)\|?>|<\|(?:end_of_solution|END_RESPONSE)\|>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ROLE = r"(?:\s{0,9}(?:assistant|model)\b\s{0,9}(?:<\|end_header_id\|>)?)?"
_BAR = r"[|\uff5c]"  # DeepSeek uses fullwidth bars
_NOISE = r"<(?:s|bos|pad|unk|start_of_text)>|\[BOS\]"
_END = (
    rf"<{_BAR}[^<>|\uff5c\s]{{1,40}}(?:{_BAR}>|{_BAR}?\Z)|</s>"
    r"|<(?:eos|(?:start|end)_of_turn|end_of_text)>|\[/?INST\]|\[EOS\]"
)
_LEADING_MARKS = re.compile(rf"\A\s*(?:(?:{_NOISE}|{_END}){_ROLE}\s*)+", re.IGNORECASE)
_NOISE_MARK = re.compile(rf"\s?(?:{_NOISE})", re.IGNORECASE)
_END_MARK = re.compile(_END, re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
_HTML_BEGINS = re.compile(
    r"\s*(?:<[?!][^<>]{1,200}>\s*)?<(?:html|body|div|p|span|figure|figcaption|pre|center)\b", re.IGNORECASE
)
_HTML_TAG = re.compile(r"<[?!/]?[a-z][^<>]{0,200}>", re.IGNORECASE)
_HTML_BREAK = re.compile(r"(?:</(?:p|div|h\d|li|figcaption)|<br\s{0,9}/?)>", re.IGNORECASE)
_CALL = re.compile(r"</?(?:tool_call|function_call|tool_calls|json)>", re.IGNORECASE)
_BOXED = re.compile(r"\A\$*\\boxed\{(?:\\text\{)?([^{}]*)\}{1,2}\$*\Z")
_FENCE = re.compile(r"```[\w-]{0,20}[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
# A list inside a line is part of a sentence: 'A sign that says ["OPEN"].'
_JSON_BEGINS = re.compile(r"""\{\s*[\[{"']|\{\s*\}|^[ \t]*\[\s*[\[{"']""", re.MULTILINE)
_CUT_JSON = re.compile(r"""\A[\[\s]*\{\s*(["'])(\w{1,30})\1\s*:\s*(["'])((?:(?!\3)[^\\]|\\.)*)""", re.DOTALL)
_FIELDS = (
    "caption",
    "captions",
    "description",
    "text",
    "answer",
    "response",
    "output",
    "sentence",
    "content",
    "result",
    "arguments",
    "parameters",
)
_NO_CAPTION_FIELD = re.compile(r"reason|think|thought|analysis|error|prompt|question|\Aname\Z", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE = " \t\n\r\u200b\u200e\u200f\u2060\ufeff"


@dataclass(frozen=True)
class AnswerFilter(RecordFilter):
    r"""Extracts the caption from a raw answer, and rejects answers without one.

    Removes reasoning in tags, even if the opening tag is missing; end tokens and all text after them; JSON and code
    fences around the caption; HTML entities. An answer with unclosed reasoning contains no caption. Stored answers are
    raw: ``CaptionWriterCallback`` applies this filter before its own filters.

    If the chat template opens the reasoning, a truncated answer contains no tag. If any answer has a closing tag
    without an opening one, truncated answers without a closing tag therefore count as reasoning.

    Example:
        >>> answers = ["A cat? Or…\n</think>\n\nA cat &amp; a dog.</s>", "<think>A cat, or", '{"caption": "A cat."}']
        >>> verdicts = AnswerFilter().judge([CaptionRecord("a", answer) for answer in answers])
        >>> [verdict.reason or verdict.caption for verdict in verdicts]
        ['A cat & a dog.', 'reasoning without an answer', 'A cat.']
    """

    def start(self) -> Judge:
        """Return a judge of one set, block by block.

        In blocks before the first closing tag, truncated answers without a tag count as captions.
        """
        template_opens = False

        def judge(records: Sequence[CaptionRecord]) -> list[Verdict]:
            nonlocal template_opens
            template_opens = template_opens or any(_closes_first(record.caption) for record in records)
            return [
                Verdict(record.caption, "reasoning without an answer")
                if template_opens and not (record.is_complete or _closes(record.caption))
                else self.judge_one(record)
                for record in records
            ]

        return judge

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the caption, or the reason for a rejection."""
        caption = read_caption(record.caption)
        if caption:
            return Verdict(caption)
        return Verdict(record.caption, "reasoning without an answer" if record.caption.strip() else "empty answer")


def read_caption(answer: str) -> str:
    r"""Return the caption of a language model's raw answer; empty if there is none.

    Example:
        >>> read_caption("<think>Short.</think>```json\n{\"caption\": \"A cat &amp; a dog.\"}\n```")
        'A cat & a dog.'
    """
    text = answer
    for _ in range(_MAX_PASSES):
        before = text
        text = _remove_reasoning(text)
        text = _remove_marks(text)
        text = _unwrap(_remove_html(text).strip())
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        if text == before:
            break
    text = _CONTROL.sub(" ", text).strip().strip(_INVISIBLE)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _closes(answer: str) -> bool:
    return any(tag["close"] for tag in _REASONING_TAG.finditer(answer))


def _closes_first(answer: str) -> bool:
    first = next((tag for tag in _REASONING_TAG.finditer(answer) if not tag["fence"]), None)
    return first is not None and first["close"] is not None


def _remove_reasoning(text: str) -> str:
    if channels := list(_CHANNEL.finditer(text)):
        final = next((channel for channel in reversed(channels) if channel[1].lower() == "final"), None)
        return "" if final is None else _CHANNEL_END.split(text[final.end() :], maxsplit=1)[0]
    if _PLAIN_CHANNEL.match(text):
        return text.rpartition(_PLAIN_FINAL)[2] if _PLAIN_FINAL in text else ""
    if _LABEL.match(text):
        answers = list(_ANSWER_LABEL.finditer(text))
        return text[answers[-1].end() :] if answers else ""
    if finals := list(_FINAL_LABEL.finditer(text)):
        return text[finals[-1].end() :]
    # A closing tag closes all open tags, because models also mention and nest tags.
    kept: list[str] = []
    opened = ""
    position = 0
    for tag in _REASONING_TAG.finditer(text):
        if tag["open"] and not opened:
            kept.append(text[position : tag.start()])
            opened = tag["open"]
        elif tag["empty"] and not opened:
            kept.append(text[position : tag.start()])
        elif tag["close"] and not opened:
            kept.clear()
        elif not (tag["close"] or (tag["fence"] and opened.startswith("```"))):
            continue
        else:
            opened = ""
        position = tag.end()
    if not opened:
        kept.append(text[position:])
    outside = "\n".join(part.strip() for part in kept if part.strip())
    section = _ANSWER_TAG.search(outside)
    return section[1] if section else outside


def _remove_html(text: str) -> str:
    """Remove HTML tags from an answer that starts with HTML; return other answers unchanged."""
    if not _HTML_BEGINS.match(text):
        return text
    return _HTML_TAG.sub("", _HTML_BREAK.sub("\n", text))


def _remove_marks(text: str) -> str:
    text = _LEADING_MARKS.sub("", text)
    return _NOISE_MARK.sub("", _END_MARK.split(text, maxsplit=1)[0])


def _unwrap(text: str) -> str:
    """Extract the caption from JSON, a code fence, a tool call or a LaTeX box, if present."""
    if boxed := _BOXED.match(text):
        return boxed[1]
    if text[:1] == '"' and text[1:2] in ("{", "["):
        text = _unescape(text[1:].removesuffix('"'))
    if _CALL.match(text):
        text = _CALL.sub("", text).strip()
    fence = _FENCE.search(text)
    inner = (fence[1].strip() if fence else "") or text  # the fence may be empty
    found = _JSON_BEGINS.search(inner)
    if found is None:
        return inner if fence and fence.start() == 0 else text
    inner = inner[found.start() :]
    try:
        value, end = json.JSONDecoder().raw_decode(inner)
    except (ValueError, RecursionError):
        cut = _CUT_JSON.match(inner)
        if cut is None or cut[2].lower() not in _FIELDS:
            return text
        return _unescape(cut[4])
    caption = _find_text(value)
    if caption is None:
        return "" if found.start() == 0 and not inner[end:].strip() else text
    return caption


def _unescape(text: str) -> str:
    try:
        return str(parse_json(f'"{text}"'))
    except ValueError:
        return text.replace('\\"', '"').replace("\\'", "'").replace("\\n", "\n")


def _find_text(value: object, depth: int = 4) -> str | None:
    """Return the caption in a JSON value; ``None`` if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        texts = [text for each in value if (text := _find_text(each, depth - 1))]
        return "\n".join(texts) or None
    if isinstance(value, dict) and depth and value.get("type") not in ("thinking", "reasoning"):
        named = {str(name): each for name, each in value.items() if not _NO_CAPTION_FIELD.search(str(name))}
        # The last word of a name counts: "final_answer", "imageCaption", "Image caption".
        fields = {re.split(r"[\W_]|(?<=[a-z])(?=[A-Z])", name)[-1].lower(): each for name, each in named.items()}
        fields |= {name.lower(): each for name, each in named.items()}
        for name in _FIELDS:
            if text := _find_text(fields.get(name), depth - 1):
                return text
        if len(value) == len(named) == 1:
            return _find_text(next(iter(named.values())), depth - 1)
    return None
