r"""Penn Treebank tokenization of captions, equal to that of the caption benchmarks, without Java.

CIDEr depends on the tokenizer. Published scores come from pycocoevalcap, which runs Stanford's ``PTBTokenizer``
(CoreNLP 3.4.1, ``-preserveLines -lowerCase``) and drops punctuation. This implementation is based on the conventions of
the Penn Treebank (M. Marcus et al., 1993), the options in Stanford's documentation, and the jar's output for millions
of synthetic lines. Brackets are kept as ``-lrb-``: pycocoevalcap's punctuation list has them in upper case, but its
tokens are in lower case.

Remaining differences from pycocoevalcap, all of them outside of ordinary captions:

* *Neighboring captions.* pycocoevalcap tokenizes the corpus as one text, so the next caption can change the last word
  of a caption: ``vitamin B.`` loses its period if the next caption begins with ``A`` or ``The``; ``see fig.`` keeps its
  period if the next one begins with a digit; an open ``<a`` may be closed there. Here captions are independent.
* *Line separators* other than ``\n`` (``\r``, ``\v``, ``\f``, U+2028, U+2029) make pycocoevalcap assign all later
  captions to the wrong images; here they are white space.
* *Capital sigma* before a hyphen becomes a final sigma here, but not in Java.
* *Joined tokens*: a word after ``y`` and an apostrophe, curly or straight (``Y\u2019a``, ``Y'Y``), and a soft hyphen
  in a dotted word.
* *A digit of another script* right before a telephone number.
* *Others*: ``benchmarks/ptb_equality.py`` compares both tokenizers on hundreds of thousands of random strings, and
  prints an example of each class of differences.
"""

import re
import string
from collections.abc import Iterator
from functools import lru_cache

import regex

from synth2_lightning.metrics.ptb_characters import from_units, to_units

# Dropped by pycocoevalcap.
_PUNCTUATION = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})

# Character classes.
_ONCE_LETTERS = r"\u1885\u1886"
_WORDS_ALONE = (
    r"\u00AD\u03F6\u055A-\u055F\u06DD\u06DE\u06E9\u06FD\u06FE\u070F"  # the jar treats them as letters of plain words
)
_JOINT = r"[\-_\U000F058A\U000F2010\U000F2011]"  # three are in private use, which other patterns do not match
_ACCENTED = r"&[aeiouAEIOU](?i:acute|grave|uml);"
_LETTER = rf"(?:[\p{{L}}{_ONCE_LETTERS}{_WORDS_ALONE}]|{_ACCENTED})"
# Combining marks, and the modifiers and unassigned characters that the jar treats alike.
_SIGN = (
    r"(?:(?![\u0614])(?=[\u0300-\u0ECF])\p{M}"
    r"|[\u0378\u0379\u074B\u074C\u0A43-\u0A46\u0A49\u0A4A\u0A4E\u0A4F\u0AC6\u0ACA\u0ACE\u0ACF\u0C45\u0C49\u0C4E-\u0C54]"
    r"|[\u02C2-\u02C5\u02D2-\u02DF\u02E5-\u02EB\u02ED\u02EF-\u02FF\u0375\u0384\u0385])"
)
_ALNUM = rf"(?:[\p{{L}}\p{{Nd}}{_ONCE_LETTERS}]|{_ACCENTED})"
_DIGIT = r"\p{Nd}"
_QUOTE = r"(?:['\u2018\u2019\u0091\u0092]|&apos;)"
_APOSTROPHE = r"(?:['\u2019\u0092]|&apos;)"
_SPACE = r"[ \u00A0]"
_END = r"(?![A-Za-z])"

# Abbreviations that keep their period: also at the end of a sentence (closing), or only before other words (leading).
_CLOSING = """
    al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla
    fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt
    sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
"""
_LEADING = """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col cpl dept det dr drs elec ens ft gen gov
    govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps
    rev sen sens sfc sgt spc st ste supt supts treas vs wm
"""
_ABBREVIATIONS = [*_CLOSING.split(), *_LEADING.split()]
_NEVER_IN_CAPITALS = ["mfg", "mtg", "ppte", "ppty", "pte", "ptes", "pty", "ptys"]
_BEFORE_NUMBERS = ["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"]
_ASSIMILATED = ["cannot", "gonna", "wanna", "gotta", "gimme", "lemme"]
_FILE_ENDINGS = """
    bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql
    tar txt wav x xml zip
"""

# Parts of the patterns below.
_WORD = rf"(?:{_LETTER}|{_SIGN})(?:{_LETTER}|{_DIGIT}|{_SIGN})*"
_PIECE = rf"(?:[dDlLoO](?:`|{_QUOTE}){_ALNUM}{{2,}}|{_ALNUM}+)"  # o'clock, l'avion, d'Artagnan, or no elision
_CLITIC = rf"(?:(?i:{_APOSTROPHE}(?:[smd]|ll|re|ve)){_END}|(?i:(?:[\u2019\u0092]|&apos;)(?:[smd]|ll|re|ve)))"
# An abbreviation followed by one letter, or by a hyphen and one letter or digit, is split.
_NO_ABBREVIATION = (
    rf"(?!(?i:{'|'.join([*_CLOSING.split(), *_NEVER_IN_CAPITALS[2:], 'ph[.]d'])})[.](?:-[A-Za-z0-9](?!-?[A-Za-z0-9])"
    rf"|(?:{_LETTER}|{_SIGN})(?!{_ALNUM}|{_SIGN}|{_APOSTROPHE}(?i:[smd]|ll|re|ve)|[.!?]{_LETTER}|-[A-Za-z0-9])))"
)
_HYPHENATED = (
    rf"{_NO_ABBREVIATION}[A-Za-z0-9][A-Za-z0-9.,]*(?:-[A-Za-z0-9\u00AD]+)+"
    rf"|{_PIECE}(?:{_JOINT}{_PIECE})+"
)
_DOTTED = rf"{_NO_ABBREVIATION}{_WORD}(?:[.!?]{_WORD})+"
_ELIDED = (
    rf"[nNA-HJ-XZ](?:`|{_QUOTE})[A-Za-z]\p{{L}}+"
    rf"|\p{{L}}+[aeiouyAEIOUY](?:`|{_QUOTE})[aeiouA-Z]\p{{L}}*"  # ma'am
    rf"|(?i:c{_QUOTE}(?:mon|est)|li{_QUOTE}l|e{_QUOTE}er|cap{_QUOTE}n|s{_QUOTE}mores|nat{_QUOTE}l|nor{_QUOTE}easter"
    rf"|hallowe{_QUOTE}en)"
)
_CLIPPED = (
    rf"(?i:{_QUOTE}(?:em|til|cause)|{_APOSTROPHE}n{_APOSTROPHE}|(?:ol|somethin|dunkin){_QUOTE}|y{_QUOTE}(?=all)"
    rf"|[ldj]{_APOSTROPHE}(?!(?:[smd]|ll|re|ve){_END})|'n(?=\s|$)|(?:[\u2019\u0092]|&apos;)n)"
)
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_SITE = r"[^\s\"<>|(){}"  # unclosed: each use appends more excluded characters
_PATH = r"(?:/[^\s\"<>|()]+[^\s\"<>|(){}.!?,\-])?"
_PHONE = r"\d{3,4}[\- \u00A0]?\d{3,5}"
_EYE = r"[=x~\-'<>\^]"
_ATTRIBUTE = r" +[A-Za-z][A-Za-z0-9_:.\-]*(?: *= *(?:'[^']*'|\"[^\"]*\"))?"
_TAG = rf"<[A-Za-z_][A-Za-z0-9_:.\-]*(?:{_ATTRIBUTE})* */? *>|</[A-Za-z][A-Za-z0-9_:.\-]* *>|<[!?][A-Za-z\-][^>]*>"
# Words that mark a preceding "B." as the end of a sentence rather than an initial.
_OPENERS = """
    A About After An As At But Earlier He Her Here However If In It Last Many More Now Once One Other Our She Since So
    Some Such That The Their Then There These They This We What When While Yet You
"""
_OPENING = rf"\s+(?:(?:{'|'.join(f'{word[0]}(?i:{word[1:]})' for word in _OPENERS.split())})|(?i:mr)\.|{_TAG})(?:\s|$)"

# Token kinds: the longest match wins; the first one of a tie.
_KINDS = {
    "negated": rf"(?:[A-Za-z\u00AD]*[A-MO-Za-mo-z]\u00AD*)?[Nn]{_QUOTE}[Tt]",
    "assimilated": rf"(?i:{'|'.join(_ASSIMILATED)})(?!{_CLITIC})",
    "word": _WORD,
    "compound": rf"{_HYPHENATED}|{_PIECE}",
    "slashed": rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}",
    "file": rf"{_NO_ABBREVIATION}(?:{_ALNUM}|\u00AD)+(?:\.{_ALNUM}+)*\.(?i:{'|'.join(_FILE_ENDINGS.split())})"
    r"(?=[\s.?!,]|$)",
    "dotted": _DOTTED,
    "elided": _ELIDED,
    "clipped": _CLIPPED,
    "clitic": _CLITIC,
    "contracted_it": r"(?i:['\u2018\u2019\u0091]t(?=is|was))",
    "ampersand": r"[A-Z]+(?:(?:[&+]|&(?i:amp);)[A-Z]+)+",
    "initials": rf"[A-Za-z]\.(?!{_OPENING})|(?:[A-Za-z]\.){{2,}}|(?i:ph\.d\.)"
    r"|(?:[A-Za-z0-9][A-Za-z0-9.,]*-)+(?:[A-Za-z]\.){2,}",
    "abbreviation": rf"(?i:{'|'.join(_ABBREVIATIONS)})\."
    rf"|(?:{'|'.join(f'(?i:{word[0]}){word[1:]}' for word in _NEVER_IN_CAPITALS)})\.",
    "numbered": rf"(?i:{'|'.join(_BEFORE_NUMBERS)})\.(?=\s?{_DIGIT})",
    "before_comma": rf"(?:{_WORD}|{_HYPHENATED}|{_PIECE}|{_ELIDED}|{_DOTTED}|[A-Z]+(?:&[A-Z]+)+)\.(?=[,;:])",
    "number": rf"[+\-]?(?:{_DIGIT}*(?:[.,:\u00AD\U000F066B\U000F066C]{_DIGIT}+)+|{_DIGIT}+)",
    "fraction": rf"(?:{_DIGIT}{{1,4}}[\- \u00A0])?{_DIGIT}{{1,4}}(?:/|\u2044){_DIGIT}{{1,4}}",
    "date": r"\d{1,2}[\-/]\d{1,2}[\-/]\d{2,4}",
    "year": rf"{_APOSTROPHE}(?:{_DIGIT}{{2}}(?=\s|$)|{_DIGIT}0s)",
    "phone": rf"\(\d{{2,3}}\){_SPACE}?{_PHONE}|\+\d{{2,4}}[\- \u00A0]{_PHONE}"
    rf"|(?:\+?\d{{2,4}}[\- \u00A0])?\d{{2,4}}[\- \u00A0]{_PHONE}",
    "currency": r"[A-Z]+\$",
    "language": r"[CcFf]\#|[Cc]\+\+",
    "url": rf"(?i:https?)://{_SITE}]+{_SITE}.!?,\-]",
    "site": rf"(?i:www)\.(?:{_SITE}.!?,]+\.)+[A-Za-z]{{2,4}}{_PATH}",
    "domain": rf"(?:{_SITE}A-Z0-9!@$'`,\-./:;=?\[\\\]\^_]+\.)+(?i:com|net|org|edu){_PATH}",
    "mail": rf"(?:<|&lt;)?[A-Za-z0-9]{_SITE}]*@(?:{_SITE}.]+\.)*{_SITE}.]+>?",
    "mention": r"@[A-Za-z_][A-Za-z0-9_]*",
    "hashtag": rf"\#(?:{_LETTER}|{_SIGN})+",
    "tag": _TAG,
    "entity": r"&\#\d+;|&(?i:amp|lt|gt|nbsp);",
    "smiley": r"[<>]?[:;=][\-o*']?[()\[\]{DdPpO|\\@](?![A-Za-z0-9])",
    "face": rf"{_EYE}_{_EYE}|\({_EYE}[_.\-]?{_EYE}\)",
    "quote": r"'{1,2}|\"|[`\u0091-\u0094\u00AB\u00BB\u2018-\u201F\u2039\u203A]{1,2}|&(?:quot|QUOT|apos);",
    "pause": rf"-{{1,4}}|[.]{{3,5}}|\.{_SPACE}\.{_SPACE}\.|[\u2013-\u2015\u0096\u0097\u2026\u0085]|&[mn]dash;",
    "run": r"-{5,}|_+|\*+|\\\*|@+|\#+|<<|>>|[?!]{2,}|[\u00B2\u00B3\u00B9\u2070\u2074-\u2079\u2080-\u2089]+",
    "symbol": r"[\p{S}\p{P}\p{No}\u0080\u0600-\u0603\u0614\u242A-\u243F\u244B-\u245F\u2B74\u2B75]",
}
_SCANNER = regex.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()), regex.POSIX)

# Finds tokens that may contain white space or depend on what follows it. None begins with one of these characters,
# nor with a period that ends the caption.
_UNREACHING = (string.ascii_letters + " ,;:!?'\"-").encode()
_REACHING = regex.compile(
    rf"[<.{_DIGIT}\x1C-\x1F](?:(?<=[<\x1C-\x1F])|(?<={_DIGIT})\)?\s+{_DIGIT}"
    rf"|(?<=(?<![A-Za-z])(?i:[a-z]|{'|'.join(_BEFORE_NUMBERS)})\.)\s+[{_DIGIT}A-Z])"
)
# Fast path for ordinary words; the scanner would try all kinds.
_PLAIN = re.compile(r'"?([A-Za-z]{2,}(?:-[A-Za-z]+)*)(\'s)?[.,!?]?"?')
_NOT_PLAIN = frozenset([*_ASSIMILATED, *_ABBREVIATIONS, *_NEVER_IN_CAPITALS])

# Replacements in the output.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_RESPELT = _BRACKETS | {
    **{"\u00a2": "cents", "\u00a3": "#", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$", "\u0080": "$"},
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": "", "\u00ad": "-"},
}
_QUOTATION_MARKS = str.maketrans(
    dict.fromkeys("\u0091\u2018\u201b\u2039", "`")
    | dict.fromkeys("\u0092\u2019\u203a", "'")
    | dict.fromkeys("\u0093\u00ab\u201c", "``")
    | dict.fromkeys('"\u0094\u00bb\u201d', "''")
)
_ROUND_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-"})


def tokenize(caption: str) -> str:
    r"""Split a caption into lower-case Penn Treebank tokens without punctuation.

    Args:
        caption: Original caption.

    Returns:
        The tokens, separated by single spaces. Spaces within a token, as in ``1 1/2``, are no-break spaces, as in the
        jar's output.

    Example:
        >>> tokenize('Two dogs can\'t reach the "frisbee" (it\'s red).')
        "two dogs ca n't reach the frisbee -lrb- it 's red -rrb-"
    """
    return " ".join(filter(None, map(tokenize_part, split_parts(caption))))


def split_parts(caption: str) -> list[str]:
    """Split a caption at white space, unless a token may extend over it.

    Example:
        >>> split_parts("A dog."), split_parts("No. 5 is up")
        (['A', 'dog.'], ['No. 5 is up'])
    """
    is_suspect = caption.rstrip(" .").encode(errors="replace").translate(None, _UNREACHING)  # far faster than a search
    return [caption] if is_suspect and _REACHING.search(caption) else caption.split()


@lru_cache(maxsize=1 << 17)
def tokenize_part(part: str) -> str:
    """Return the tokens of a part of a caption, separated by single spaces.

    Example:
        >>> tokenize_part("dog's")
        "dog 's"
    """
    plain = _PLAIN.fullmatch(part)
    if plain:
        word: str = plain[1].lower()
        if word not in _NOT_PLAIN:
            return f"{word} 's" if plain[2] else word
    return " ".join(_scan(part)).rstrip()


def _scan(text: str) -> Iterator[str]:
    text = to_units(text)
    position = 0
    while match := _SCANNER.search(text, position):
        kind, written = match.lastgroup or "", match[0]
        if kind == "negated" and (stem := written[: written.lower().rindex("n")]):
            written = stem  # "n't" is matched again, with the text after it
            kind = "word"
        position = match.start() + len(written)
        for token in _spell(kind, from_units(written).lower()):
            if token and token not in _PUNCTUATION:
                yield token


def _spell(kind: str, token: str) -> tuple[str, ...]:
    match kind:
        case "pause":
            return ()
        case "negated" | "clitic":
            return (_plain_quotes(token),)
        case "assimilated":
            return token[:3], token[3:]
        case "quote":
            return (_plain_quotes(token.replace("&quot;", '"')),)
        case "ampersand":
            return (token.replace("&amp;", "&"),)
        case "tag" | "url" | "site" | "domain" | "mail" | "file" | "hashtag":
            return (token.replace(" ", "\u00a0"),)  # soft hyphens are kept
        case "phone" | "smiley" | "face":
            return (token.replace(" ", "\u00a0").translate(_ROUND_BRACKETS),)
        case _:
            token = _RESPELT.get(token, token)
            return (token.replace(" ", "\u00a0").replace("\u00ad", ""),)


def _plain_quotes(token: str) -> str:
    return token.replace("&apos;", "'").translate(_QUOTATION_MARKS)
