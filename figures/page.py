"""Pages: templates, style sheet and scripts are files. Everything is escaped but what is marked as ours."""

import json
import re
from importlib.resources import files

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from vlsurgery.figures import theme

SCRIPTS = ("theme.js", "place.js", "figures.js")


def render(name: str, cdn: bool = False, scripts: tuple[str, ...] = (), **told: object) -> str:
    """A page of a template, which escapes everything and fails on a name that it doesn't know.

    cdn: link plotly.js instead of embedding it. scripts: those of the page beside those that draw its figures.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_read))
    return environment.get_template(name).render(
        style=Markup(theme.style_sheet()) + _asset("page.css"),
        early_script=_asset("early.js"),
        palette=Markup(json.dumps(theme.DARK)),
        scripts=[_asset(each) for each in (*SCRIPTS, *scripts)],
        plotly=_library(cdn),
        **told,
    )


def _library(cdn: bool) -> Markup:
    """plotly.js itself, or a link to the very version that made the figures."""
    if not cdn:
        return Markup("<script>{}</script>").format(Markup(get_plotlyjs()))
    page_of_one = plotly.io.to_html(go.Figure(), include_plotlyjs="cdn", full_html=False)
    (link,) = re.findall(r'<script[^>]*\ssrc="[^"]+"[^>]*></script>', page_of_one)
    return Markup(link)


def _asset(name: str) -> Markup:
    """A style sheet or script of ours, to go into a page as it is."""
    return Markup(_read(name))


def _read(name: str) -> str:
    return files("vlsurgery.figures").joinpath("templates", name).read_text(encoding="utf-8")
