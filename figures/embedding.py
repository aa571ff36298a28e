"""A figure on a page: title and controls as HTML, which wraps and has keys, the drawing and its numbers packed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import Markup

from vlsurgery.figures.packing import packed

# What a figure draws, as flat records with plain words as keys.
Rows = Sequence[Mapping[str, str | int | float | None]]
# The buttons are named one by one because plotly's own set holds one that sends the figure's data to a service.
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [["zoom2d", "resetScale2d"]]}
_MARKUP = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Embedded:
    """A figure in parts. title, subtitle: without markup, to be escaped by the page. height: of the drawing, in
    pixels. count: of its rows. data: all that the page's script needs, packed."""

    anchor: str
    title: str
    subtitle: str
    height: int
    count: int
    data: str


def embed(anchor: str, figure: go.Figure, rows: Rows, commands: tuple[str, ...] = ()) -> Embedded:
    """Take a figure of `theme.frame` apart. commands: what the page says at each position of the figure's slider."""
    parts = figure.to_dict()
    layout = parts["layout"]
    heading = layout.pop("title", {})
    controls = [*map(_slider, layout.pop("sliders", [])), *map(_menu, layout.pop("updatemenus", []))]
    room = (layout.get("meta") or {}).get("room", {"top": 0, "bottom": 0})
    layout["height"] -= room["top"] + room["bottom"]
    layout["margin"]["t"] -= room["top"]
    layout["margin"]["b"] -= room["bottom"]
    data = {
        "data": parts["data"], "layout": layout, "frames": parts.get("frames", []), "config": CONFIG,
        "title": heading, "room": room["top"], "controls": controls, "commands": commands, "rows": list(rows),
    }  # fmt: skip
    subtitle = heading.get("subtitle", {}).get("text", "")
    return Embedded(
        anchor, _plain(heading.get("text", "")), _plain(subtitle), layout["height"], len(rows), packed(data)
    )


def _plain(text: str) -> str:
    """The words of a title: lines joined, our markup taken out, and what was escaped as it was."""
    return str(Markup(_MARKUP.sub("", text.replace("<br>", " "))).unescape())


def _slider(slider: dict) -> dict[str, object]:
    prefix = slider.get("currentvalue", {}).get("prefix", "position")
    return {"kind": "slider"} | _steps(slider, prefix.rstrip(": "), slider.get("steps", []))


def _menu(menu: dict) -> dict[str, object]:
    return {"kind": "menu"} | _steps(menu, menu.get("name", "show"), menu.get("buttons", []))


def _steps(control: dict, name: str, steps: list[dict]) -> dict[str, object]:
    told = [{"label": each["label"], "method": each["method"], "args": each["args"]} for each in steps]
    return {"name": _plain(name), "active": control.get("active", 0), "steps": told}
