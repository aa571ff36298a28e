"""The marks that reasoning models set around their thoughts, and what stands behind the last of them."""

import re

# A thought's opening and closing marks; what follows the last closing one is what the model says.
_CLOSED = re.compile(
    r"</(?:seed:)?(?:think(?:ing)?|thought|reasoning)>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|end_of_thought\|>|"
    r"<unused95>|<channel\|>|<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
    re.I,
)
_OPENED = re.compile(
    r"<(?:seed:)?(?:think(?:ing)?|thought|reasoning)>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>|"
    r"<unused94>|<\|channel>|<\|channel\|>\s*(?:analysis|commentary)\b",
    re.I,
)
# Marks around the answer itself, which are no words of it.
_AROUND = re.compile(r"</?answer>|<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>|<\|return\|>", re.I)
# Tokens of the marks of harmony channels, which are no marks alone.
_PARTS = ("<|channel|>", "<|message|>", "<|constrain|>")


def spoken(completion: str) -> str | None:
    """What a reasoning model says after its last thought; the whole text of others; None while a thought is open."""
    closed = list(_CLOSED.finditer(completion))
    rest = completion[closed[-1].end() :] if closed else completion
    return None if _OPENED.search(rest) else _AROUND.sub(" ", rest)


def opened(text: str) -> str:
    """The mark of the thought that a text leaves open, with the line end behind it; empty where it leaves none."""
    found = list(_OPENED.finditer(text))
    if not found or spoken(text) is not None:
        return ""
    return found[-1][0] + "\n"


def is_thought_mark(token: str) -> bool:
    """Whether a token is a mark of a thought, or a part of one."""
    return bool(_OPENED.fullmatch(token) or _CLOSED.fullmatch(token)) or token in _PARTS
