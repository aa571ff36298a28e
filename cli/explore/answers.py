"""What the page can ask for, and the answers: the case, two directions, completions, a typed prompt."""

import html
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from importlib.resources import files
from threading import Lock
from typing import Any, Final

from plotly.graph_objects import Figure
from plotly.io import to_json
from plotly.offline import get_plotlyjs
from pydantic import ValidationError

from vlsurgery.cli.explore.bench import ModelBench
from vlsurgery.cli.explore.case_data import PAGE, CaseData
from vlsurgery.cli.explore.reading import MAX_PROMPT, PromptReader, Typed
from vlsurgery.cli.explore.server import Asset, Fields, Routes
from vlsurgery.cli.workflow.completion_filter import CompletionFilter
from vlsurgery.figures import direction_pair, prompt_layers, theme
from vlsurgery.figures.wording import ROLE_ORDER, modality_name, rank, role_name
from vlsurgery.probes.results import LABELS, PromptReading
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import first_fault
from vlsurgery.surgery.runtime.visible import visible

BUTTONS: Final = 26  # pixels above a figure's legend, in which its buttons stand
KEPT: Final = 16  # typed prompts whose readings are kept, so that roles are shown side by side


class Answers:
    """Answers the page's questions about one case. Holds no state but the model and the last readings."""

    def __init__(self, data: CaseData, bench: ModelBench) -> None:
        self.data = data
        self.bench = bench
        self._reader = PromptReader(data, bench)
        self._readings: OrderedDict[tuple[str, ...], dict[str, PromptReading]] = OrderedDict()
        self._lock = Lock()

    @property
    def routes(self) -> Routes:
        """All that can be asked for."""
        return Routes(
            assets={
                "/": Asset("text/html; charset=utf-8", _file("index.html")),
                "/explore.js": Asset("text/javascript; charset=utf-8", _file("explore.js")),
                "/explore.css": Asset("text/css; charset=utf-8", _style() + _file("explore.css")),
                "/plotly.js": Asset("text/javascript; charset=utf-8", get_plotlyjs().encode()),
            },
            reads={
                "/case": self.case,
                "/pair": self.pair,
                "/completions": self.completions,
                "/doing": self.doing,
            },
            acts={"/read": self.read},
        )

    def case(self, fields: Fields) -> dict[str, Any]:
        """What there is to choose from."""
        _known(fields, ())
        data, probe = self.data, self.data.probe
        shown = probe.shown_at if probe else None
        return {
            "name": str(data.case.folder.absolute()),
            "verdict": visible(probe.verdict) if probe else "",
            "sides": [
                {
                    "key": side.key,
                    "name": side.name,
                    "positions": positions,
                    "layers": len(data.vectors(side, positions[0])),
                }
                for side, positions in data.sides.items()
            ],
            "shown": list(shown) if shown else None,
            "cells": data.cells,
            "roles": [{"role": role, "name": role_name(role)} for role in data.roles],
            "labels": list(LABELS),
            "seats": [
                {"role": role, "name": role_name(role), "absent": seat.absent}
                for role, seat in self.bench.seats.items()
            ],
            "pictures": [{"key": key, "name": modality_name(key)} for key in ("text", "blank", "noise", "benign")],
            "page": PAGE,
            "max_prompt": MAX_PROMPT,
        }

    def pair(self, fields: Fields) -> dict[str, Any]:
        """Two directions side by side."""
        _known(fields, ("first", "second", "position", "layer"))
        if self.data.probe is None or not self.data.sides:
            raise SurgeryError("this case holds no directions yet. This makes them: vlsurgery probe")
        sides = [self.data.side(name, fields.get(name, "")) for name in ("first", "second")]
        position = fields.get("position", "")
        first, second = (self.data.vectors(side, position) for side in sides)
        keys = [(side.role, side.modality) for side in sides]
        info = direction_pair.compute(
            self.data.probe, keys[0], keys[1], (first, second), position, _number(fields, "layer")
        )
        return {
            "figures": [_drawn(direction_pair.plot, info), _drawn(direction_pair.plot_separation, info)],
            "rows": direction_pair.rows(info),
        }

    def completions(self, fields: Fields) -> dict[str, Any]:
        """One page of the prompts that meet the conditions."""
        _known(fields, ("role", "set", "verdict", "flipped", "grep", "page"))
        role, set_, verdict, flipped, grep = (
            fields.get(name) or None for name in ("role", "set", "verdict", "flipped", "grep")
        )
        wanted = CompletionFilter(role, set_, verdict, flipped, grep)
        return self.data.search(wanted, _number(fields, "page"))

    def doing(self, fields: Fields) -> dict[str, Any]:
        """What the bench does, and whose model it holds."""
        _known(fields, ())
        return {"doing": self.bench.doing, "loaded": self.bench.loaded}

    def read(self, body: Any) -> dict[str, Any]:
        """A typed prompt read with one role, drawn with the roles that read it before."""
        typed = _typed(body)
        found = self._reader.read(typed)
        with self._lock:
            readings = {**self._readings.pop(typed.key, {}), typed.role: found}
            self._readings[typed.key] = readings
            while len(self._readings) > KEPT:
                self._readings.popitem(last=False)
        ordered = sorted(readings.values(), key=lambda each: rank(ROLE_ORDER, each.role))
        info = prompt_layers.compute(ordered)
        lens = [_drawn(prompt_layers.plot_lens, info)] if info.lens else []
        return {
            "answers": [_answer(each) for each in ordered],
            "figures": [_drawn(prompt_layers.plot, info), *lens],
            "rows": prompt_layers.rows(info),
        }


def _answer(reading: PromptReading) -> dict[str, Any]:
    harmful, harmless = reading.references
    beside = f"set against {harmful} harmful and {harmless} harmless report prompts" if harmful or harmless else ""
    return {
        "role": role_name(reading.role),
        "text": visible(reading.text),
        "cut": reading.cut,
        "notes": [visible(note) for note in (*reading.notes, beside) if note],
    }


def _drawn(plot: Callable[..., Figure], info: Any) -> dict[str, Any]:
    """A figure for light and for dark paper. Its title and subtitle stand outside of it, where they can wrap."""
    figure = plot(info)
    title, subtitle = figure.layout.title.text, figure.layout.title.subtitle.text
    papers = {"light": figure, "dark": plot(info, dark=True)}
    return {
        "title": _plain(title),
        "subtitle": _plain(subtitle),
        **{name: json.loads(to_json(_untitled(each))) for name, each in papers.items()},
    }


def _untitled(figure: Figure) -> Figure:
    """The figure without its title, and with a row for its buttons in place of the room that the title took."""
    room = figure.layout.meta["room"]["top"] - BUTTONS
    figure.update_layout(title=None, height=figure.layout.height - room, margin={"t": figure.layout.margin.t - room})
    return figure


def _plain(markup: str) -> str:
    """The words of a title: our own markup is taken out, and what was escaped is text again."""
    return html.unescape(re.sub(r"</?b>", "", markup.replace("<br>", " ")))


def _known(fields: Fields, names: Collection[str]) -> None:
    if strange := [name for name in fields if name not in names]:
        raise SurgeryError(f"{visible(strange[0][:80])}: not a field of this question. Load the page again.")


def _number(fields: Fields, name: str) -> int:
    """A whole number from 0 on."""
    text = fields.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SurgeryError(f"{name}: expected a whole number from 0 on, found {text[:40]!r}. Load the page again.")
    return int(text)


def _typed(body: Any) -> Typed:
    try:
        return Typed.model_validate(body)
    except ValidationError as error:
        raise SurgeryError(f"the prompt can't be read: {first_fault(error)}.") from error


def _file(name: str) -> bytes:
    return files("vlsurgery.cli.explore").joinpath("page", name).read_bytes()


def _style() -> bytes:
    """The colours of the page, light and dark, as the report has them."""
    papers = ["".join(f"--{name}: {pair[at]}; " for name, pair in theme.PAGE_COLOURS.items()) for at in (0, 1)]
    return (f":root {{ color-scheme: light; {papers[0]}}}\n:root.dark {{ color-scheme: dark; {papers[1]}}}\n").encode()
