"""The marks that reasoning models set around their thoughts, and what stands outside of them."""

import re

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|inner_monologue)"
# A thought's closing and opening marks. The last of each are harmony channels whose tokens were left out.
_CLOSE = (
    rf"</\s*{_NAMES}\s*>|\[/THINK\]|◁/think▷|<\|/think\|>|<\|END_THINKING\|>|<\|end_of_thought\|>|<unused95>|<channel\|>|"
    r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|(?-i:assistantfinal(?=\S))"
)
_OPEN = (
    rf"<\s*{_NAMES}(?:\s[^<>/]*)?>|\[THINK\]|◁think▷|<\|think\|>|<\|START_THINKING\|>|<\|begin_of_thought\|>|<unused94>|"
    r"<\|channel>|<\|channel\|>\s*(?:analysis|commentary)\b|(?-i:\Aanalysis(?=[A-Z]))"
)
_MARK = re.compile(rf"(?P<close>{_CLOSE})|(?P<open>{_OPEN})", re.I)
# Marks around the answer itself, which are no words of it, and thoughts that are left out by a single mark.
_AROUND = re.compile(
    r"</?(?:answer|output)>|<think\s*/>|<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>|<\|return\|>", re.I
)
# Tokens of the marks of harmony channels, which are no marks alone.
_PARTS = ("<|channel|>", "<|message|>", "<|constrain|>")

_QUOTES = "`\"'“”‘’«»"
_WORD = re.compile(r"[<\[]/?\s*[a-z]", re.I)  # marks in plain letters, which an answer can also name
_FENCE = re.compile(r"^\s*```", re.M)
_MIDWAY = re.compile(r"[^\s.!?。>\]*][ \t(]+\Z")  # a place within a sentence, where no thought starts


def spoken(completion: str) -> str | None:
    """What a reasoning model says outside of its thoughts; the whole text of others; None while a thought is open.

    A closing mark without an opening one ends a thought that the template has opened. Marks that an answer only
    names are words of it: in quotes, in code, or within a sentence.
    """
    said, start, inside, named = [], 0, False, 0
    for mark in _MARK.finditer(completion):
        if _is_quoted(completion, mark):
            continue
        if mark["open"]:
            if not inside and _is_named(completion[start : mark.start()], mark):
                named += 1
                continue
            if not inside:
                said.append(completion[start : mark.start()])
            inside = True
        elif not inside and (named or _ends_a_clause(completion, mark)):
            named = max(named - 1, 0)
            continue
        else:
            said, inside, named = said if inside else [], False, 0
        start = mark.end()
    if inside:
        return None
    return _AROUND.sub(" ", " ".join(part for part in (*said, completion[start:]) if part.strip()))


def as_thought(thought: str, answer: str, is_open: bool = False) -> str:
    """A thought and the answer behind it as one completion, of which `spoken` gives the answer.

    is_open: whether the completion ended within the thought. Marks inside of the thought, which would end it early, are
    left out.
    """
    inside = _MARK.sub(" ", thought)
    return f"<think>\n{inside}" if is_open else f"<think>\n{inside}\n</think>\n\n{answer}"


def opened(text: str) -> str:
    """The mark of the thought that a text leaves open, with the line end behind it; empty where it leaves none."""
    found = [mark for mark in _MARK.finditer(text) if mark["open"]]
    if not found or spoken(text[found[-1].start() :]) is not None:
        return ""
    return found[-1][0] + "\n"


def is_thought_mark(token: str) -> bool:
    """Whether a token is a mark of a thought, or a part of one."""
    return bool(_MARK.fullmatch(token)) or token in _PARTS


def _is_quoted(text: str, mark: re.Match[str]) -> bool:
    """Whether quotation marks stand on both sides of a mark."""
    around = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    return all(each and each in _QUOTES for each in around)


def _is_named(before: str, mark: re.Match[str]) -> bool:
    """Whether an answer names an opening mark, in code or within a sentence. before: what the answer says up to it."""
    in_code = len(_FENCE.findall(before)) % 2 == 1
    return bool(_WORD.match(mark[0])) and (in_code or bool(_MIDWAY.search(before)))


def _ends_a_clause(text: str, mark: re.Match[str]) -> bool:
    """Whether a closing mark stands before punctuation, as the name of one does and the end of a thought does not."""
    return bool(_WORD.match(mark[0])) and text[mark.end() : mark.end() + 1] in tuple(".,;:!?)")
