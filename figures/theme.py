"""How every figure and page looks: one plotly template, and every colour with its counterpart on dark paper, fixed here
and nowhere else.

The role colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart in the common kinds of
colour blindness; still, no figure relies on colour alone: roles are also named, dashed or hatched. Figures are drawn
in light colours; `shown` gives them the dark ones, and the page's script does the same by the same table.
"""

import html
import itertools
import re
import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go

INK = "#1b2430"
MUTED = "#5b6675"
FAINT = "#98a2b0"
RULE = "#d9dee5"
GRID = "#edf0f3"
PAPER = "#ffffff"
FONT = 'Inter, "Helvetica Neue", Helvetica, "Segoe UI", Arial, "Liberation Sans", sans-serif'

ROLE_COLOURS = {
    "base": "#0072b2",
    "graft": "#56b4e9",
    "adapted": "#d55e00",
    "safety": "#cc79a7",
    "merged:uniform": "#e69f00",
    "merged": "#009e73",
}
UNKNOWN_ROLE = "#6b7280"
COSINE_SCALE = [[0.0, "#c4581a"], [0.5, "#f7f7f5"], [1.0, "#1f5f99"]]  # from -1 by 0 to 1
SIDE_COLOURS = {"harmful": "#9a4a2f", "harmless": "#4a7a63"}  # kinds of request, which are no roles
HEAT_SCALE = [[0.0, "#f6f4ef"], [0.5, "#c2a878"], [1.0, "#4a3516"]]  # from nothing to much
# From far below 0 through nothing to far above it.
DIVERGING = [[0.0, "#1f3f6e"], [0.25, "#8fb3d9"], [0.5, "#f6f4ef"], [0.75, "#c2a878"], [1.0, "#4a3516"]]
SAFETY_SHADES = (ROLE_COLOURS["safety"], "#7d3f63", "#e6b8d0", "#4d1f3b")  # of several safety-tuned models side by side

# Kinds of block are no roles, so they take none of the roles' colours; they differ in lightness.
KIND_COLOURS = {"attention": "#33415c", "MLP": "#b9a98c", "other": "#8b94a3"}

# Light -> dark, of every colour that differs; all others serve on both papers. No dark one is another's light one, so
# that the way back is known.
DARK = {
    INK: "#e6eaf0",
    MUTED: "#a6b0bd",
    FAINT: "#66717f",
    RULE: "#3a434f",
    GRID: "#252c35",
    PAPER: "#14181e",
    "#7d3f63": "#a3588a",  # further safety-tuned models
    "#4d1f3b": "#f6e3ee",
    "#33415c": "#c9d4ee",  # attention
    "#b9a98c": "#93825f",  # MLP
    "#8b94a3": "#67707e",  # neither
    "#f6f4ef": "#1e1d1a",  # the heat scale
    "#c2a878": "#8a713e",
    "#4a3516": "#f3e0b0",
    "#c4581a": "#e58a4e",  # the scale of cosines
    "#f7f7f5": "#20252c",
    "#1f5f99": "#5aa3e0",
    "#9a4a2f": "#d98b6c",  # kinds of request
    "#4a7a63": "#7fb89b",
    "#1f3f6e": "#cfe3fb",  # and of its other side, below 0
    "#8fb3d9": "#45688f",
    "#8a5a00": "#c9a15a",  # policies
    "#4b3f92": "#9d92e6",
    "#8c2d04": "#e07a4a",  # sets along a run
    "#2a6f97": "#4796c4",
}
# Colours of the page around figures, by the name that the style sheet gives them: light, dark.
PAGE_COLOURS = {
    "paper": (PAPER, DARK[PAPER]),
    "ink": (INK, DARK[INK]),
    "body": ("#3a4553", "#c3cbd5"),
    "muted": (MUTED, DARK[MUTED]),
    "faint": (FAINT, DARK[FAINT]),
    "rule": (RULE, DARK[RULE]),
    "grid": (GRID, DARK[GRID]),
    "wash": ("#f6f7f9", "#1c2229"),
    "track": ("#dde2e8", "#313a45"),
    "accent": ("#0067a0", "#6cb6f0"),
    "alarm": ("#d55e00", "#e0752a"),
    "alarm-wash": ("#fdf3ec", "#2b1f17"),
    "refused": ("#e3f1ec", "#173a2f"),
    "complied": ("#fbe7da", "#472a17"),
    "merged": ("#f0f9f6", "#15241f"),
    "picked": ("#fff3c4", "#4a3f12"),
}

DASHES = {"text": "solid", "benign": "dash", "own": "longdash", "blank": "dot", "noise": "dashdot"}

HEAD_HEIGHT = 22
LINE_HEIGHT = 19
LEGEND_ROW = 24
PANEL_TITLE = 24
TOP = 24  # pixels above a drawing that has neither title nor legend
SLIDER = 70


def role_colour(role: str) -> str:
    """The colour of a role; `safety:NAME` takes that of `safety`, and a role that nobody named is grey."""
    return ROLE_COLOURS.get(role) or ROLE_COLOURS.get(role.partition(":")[0], UNKNOWN_ROLE)


def contrast(one: str, other: str) -> float:
    """The contrast of two hex colours, from 1 (none) to 21 (black on white), as WCAG 2.2 defines it. Text needs 4.5,
    marks need 3."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


_COLOUR = re.compile(r"#[0-9a-f]{6}|rgba\((\d+),(\d+),(\d+),([\d.]+)\)")
_STYLE = re.compile(r"(?<=color:)#[0-9a-f]{6}")


def darkened(value: object) -> object:
    """A part of a figure with every colour of ours as on dark paper: whole strings, and `color:` inside of markup."""
    if isinstance(value, dict):
        return {key: darkened(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [darkened(part) for part in value]
    if not isinstance(value, str):
        return value
    found = _COLOUR.fullmatch(value)
    if found is None:
        return _STYLE.sub(lambda match: DARK.get(match[0], match[0]), value)
    if found[1] is None:
        return DARK.get(value, value)
    solid = "#" + "".join(f"{int(part):02x}" for part in found.groups()[:3])
    return tint(DARK[solid], float(found[4])) if solid in DARK else value


def shown(figure: go.Figure, dark: bool) -> go.Figure:
    """A figure on light paper as it is, or with the colours of dark paper."""
    return go.Figure(darkened(figure.to_dict())) if dark else figure


def source_colours(sources: Sequence[str]) -> dict[str, str]:
    """A colour for each role that a merge goes toward, so that several safety-tuned ones can be told apart."""
    tuned = [source for source in sources if source.partition(":")[0] == "safety"]
    shades = dict(zip(tuned, itertools.cycle(SAFETY_SHADES), strict=False))
    return {source: shades.get(source) or role_colour(source) for source in sources}


def tint(colour: str, opacity: float) -> str:
    """A hex colour made transparent: 0 is invisible, 1 is the colour itself."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def safe(text: str) -> str:
    """Text that came from outside, so that plotly shows it and doesn't read it as markup."""
    return html.escape(text, quote=False)


def _axis() -> dict[str, object]:
    return {
        "gridcolor": GRID,
        "linecolor": RULE,
        "tickcolor": RULE,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "showline": True,
        "tickfont": {"size": 12, "color": MUTED},
        "title": {"font": {"size": 12.5, "color": MUTED}, "standoff": 10},
        "automargin": True,
    }


TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": list(ROLE_COLOURS.values()),
        "title": {
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 8, "l": 0},
            "font": {"size": 17, "color": INK, "weight": 600},
            "subtitle": {"font": {"size": 13, "color": MUTED}},
        },
        "xaxis": _axis() | {"showgrid": False},
        "yaxis": _axis(),
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": RULE,
            "align": "left",
            "font": {"family": FONT, "size": 12.5, "color": INK},
        },
        "legend": {"traceorder": "normal", "font": {"size": 12.5}, "bgcolor": "rgba(255,255,255,0)", "itemwidth": 30},
        "bargap": 0.2,
        "hovermode": "closest",
    }
)


def frame(
    figure: go.Figure, title: str, subtitle: str, plot_height: int, legend_rows: int = 1, panels: bool = False
) -> go.Figure:
    """Give a figure the house's title, legend and margins.

    title: says what the figure shows; one line. subtitle: as long as it needs; wrapped here. plot_height: of the
    axes' area in pixels, to which title, legend and axis titles are added; a page takes the title's part away again.
    legend_rows: rows that the legend takes at the narrowest width a figure is shown (860 px); 0 for none. panels: leave
    room for titles of panels.
    """
    heads, lines = textwrap.wrap(title, 90), textwrap.wrap(subtitle, 108)
    raised = PANEL_TITLE if panels else 0
    top = 10 + HEAD_HEIGHT * len(heads) + LINE_HEIGHT * len(lines) + LEGEND_ROW * legend_rows + TOP + raised
    bottom = 58
    figure.update_layout(
        template=TEMPLATE,
        title={"text": f"<b>{'<br>'.join(map(safe, heads))}</b>", "subtitle": {"text": "<br>".join(map(safe, lines))}},
        height=top + plot_height + bottom,
        margin={"t": top, "b": bottom, "l": 64, "r": 24},
        showlegend=legend_rows > 0,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1 + (8 + raised) / plot_height,
            "yanchor": "bottom",
        },
    )
    note(figure, room={"top": top - TOP - LEGEND_ROW * legend_rows - raised, "bottom": 0})
    return figure


def note(figure: go.Figure, **facts: object) -> None:
    """Keep facts of a figure for the page that shows it."""
    figure.layout.meta = dict(figure.layout.meta or {}) | facts


def add_slider(figure: go.Figure, slider: dict[str, object]) -> None:
    """Put a slider below a figure of `frame`. A page shows it as a control of its own and takes the room back."""
    room = figure.layout.meta["room"]
    figure.update_layout(
        sliders=[slider],
        height=figure.layout.height + SLIDER,
        margin={"b": figure.layout.margin.b + SLIDER},
    )
    note(figure, room=room | {"bottom": room["bottom"] + SLIDER})


def panel_title(figure: go.Figure, text: str, row: int, column: int) -> None:
    """Name one panel of several, in bold above its left corner."""
    figure.add_annotation(
        text=f"<b>{safe(text)}</b>",
        row=row,
        col=column,
        xref="x domain",
        yref="y domain",
        x=0,
        y=1,
        yshift=6,
        showarrow=False,
        xanchor="left",
        yanchor="bottom",
        font={"size": 13, "color": INK},
    )


def hover(title: str, lines: Sequence[str]) -> str:
    """Hover text: a bold first line, then facts; long ones are wrapped."""
    wrapped = [piece for line in lines for piece in textwrap.wrap(line, 60)]
    return "<br>".join([f"<b>{safe(title)}</b>", *map(safe, wrapped)])


def style_sheet() -> str:
    """The page's colours as CSS variables: those of light paper, of dark paper where the browser prefers it, and of
    either where the reader chose it; light ones in print."""
    light, dark = (
        ";".join([f"color-scheme:{name}", *(f"--{key}:{pair[at]}" for key, pair in PAGE_COLOURS.items())])
        for at, name in enumerate(("light", "dark"))
    )
    return (
        f":root{{{light}}}\n@media screen{{:root[data-theme=dark]{{{dark}}}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
    )
