"""The report's page: template, style sheet and script are files. Everything is escaped but what is marked as ours."""

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup


def template(name: str = "page.html.jinja") -> Template:
    """A page's template, which escapes everything and fails on a name that it doesn't know."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_read))
    return environment.get_template(name)


def asset(name: str) -> Markup:
    """A style sheet or script of ours, to go into the page as it is."""
    return Markup(_read(name))


def _read(name: str) -> str:
    return files("vlsurgery.figures").joinpath("templates", name).read_text(encoding="utf-8")
