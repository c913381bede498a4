"""Filter of captions that define, instruct or chat instead of describing an image."""

import re
from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import straighten_quotes
from synth2_lightning.types import CaptionRecord, Verdict

_QUOTED = re.compile(r'"[^"]*"')
_REASONS = {
    # "There is a dog" describes; "a bulldozer is a machine" and "a machine that is a" define.
    "defines a thing": re.compile(
        r"^(?:an?|the) [^.]*(?<!there )(?<!this )(?<!here )(?<! it )\bis (?:an?|the|one of) "
        r"|^(?!there|this|it|here|in|on)(?:[\w'-]+ ){1,5}is (?:an?|the|one of) "
        r"|^(?!there|these|here|in|on)(?:[\w'-]+ ){0,2}\w+s are (?:an? |the |\w+ \w+s that )"
        r"|\b(?:that|which|who|it|he|she) (?:is|was) (?:an?|the|one of) |\b(?:named|called) |[()]"
        r"|\b(?:is|are) (?:\w+ ){0,3}(?:types?|kinds?|species|genus|breeds?|variety|forms?) of\b"
        r"|\b(?:refers? to|means that|also known|such as|for example|scientific name|symbols? of|symboli[sz]es?)\b"
        r"|\be\.g\.|\betc\b",
        re.IGNORECASE,
    ),
    "states facts about a thing": re.compile(
        r"\b(?:is|are|was|were|been|being) (?:\w+ )?(?:used|called|known|considered|defined|made|prepared|produced|"
        r"created|caused|eaten|located|found|built|associated|characteri[sz]ed)\b"
        r"|\b(?:used|known) (?:to|for|as|by|in)\b|\b(?:made|prepared|produced|created|caused) (?:by|from)\b"
        r"|\b(?:lives?|lived|found|native|common|occurs?|roam(?:s|ed)?)\b (?:in|on|to|throughout|when|near|the)\b"
        r"|\b(?:often|usually|typically|commonly|generally|frequently|primarily|widely|traditionally|originally)\b"
        r"|\bcan (?:also |\w+ly )?be (?!seen|heard|spotted)|\b(?:should|must)\b"
        r"|\b(?:famous|well-known|renowned|century|invented|said to|regions? of)\b",
        re.IGNORECASE,
    ),
    "addresses the reader": re.compile(
        r"\b(?:you|your|yours|yourself|you're|you'll|let's|click|subscribe)\b|\?\W*$"
        r"|^(?:please |just |always |never |do not |don't )?(?:imagine|use|make|create|write|describe|take|try|add|"
        r"consider|note|remember|get|enjoy|explore|discover|learn|visit|meet|welcome|check|think|keep|find|capture|"
        r"experience|join|follow|feel|bring|choose|give|help|listen|open|place|prepare|put|read|say|show|start|stop|"
        r"tell|turn|wear) (?:an?|the|this|that|these|some|it|in|on|to|out|of|for|how|with|up|at|all)\b",
        re.IGNORECASE,
    ),
    "mentions its writer": re.compile(r"\bI(?:'m|'ve|'ll|'d)?\b(?!-)|\b(?i:my|myself|we|our|ours|us)\b"),
    "mentions words": re.compile(
        r"\b(?:caption|sentence|prompt|definition|paragraph)s?\b"
        r"|\b(?:the|this) (?:word|term|phrase) (?:means|refers|is|comes|has)\b",
        re.IGNORECASE,
    ),
    "is written for a web page": re.compile(r"(?:^|\s)[#@]\w|https?:|\bwww\.|[\U0001F300-\U0001FAFF]"),
}


@dataclass(frozen=True)
class ExplanationFilter(RecordFilter):
    """Rejects captions that define or explain an object, such as "A bulldozer is a machine used to…".

    Also rejects captions that address the reader, mention the writer, contain questions or instructions, or resemble
    web pages. Text in quotation marks is ignored, because it may be written on a sign in the image. English only.

    Example:
        >>> texts = ("Goldfinches are known for their song.", "A goldfinch sings on a branch.", "Enjoy the view!")
        >>> [ExplanationFilter().judge_one(CaptionRecord("a", text)).reason for text in texts]
        ['states facts about a thing', '', 'addresses the reader']
    """

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        caption = _QUOTED.sub("", straighten_quotes(record.caption))
        reason = next((reason for reason, phrases in _REASONS.items() if phrases.search(caption)), "")
        return Verdict(record.caption, reason)
