"""The process in which chat templates run: one JSON object a line in, one out.

A template is a program from a stranger. Here it has bounded memory, and its caller ends it when its time is over.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

MAX_TEMPLATE_BYTES = 512 * 2**20  # that a template may take, beyond what the process has at its start
MAX_TEXT = 1_000_000  # letters that a template may add to a conversation
READY = "ready"


def main() -> None:
    """Answer each line until the input ends, or the caller ends the process."""
    render_jinja_template = _renderer()

    def rendered(order: dict[str, Any]) -> str:
        text = render_jinja_template(
            conversations=[order["messages"]],
            chat_template=order["template"],
            add_generation_prompt=order["answer_next"],
            **order["variables"],
        )
        return str(text[0][0] if isinstance(text, tuple) else text[0])

    _bound_memory()
    _say(READY)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            text = rendered(order)
        except Exception as error:  # noqa: BLE001 -- a template can raise anything: its caller is told what
            _say({"fault": f"{type(error).__name__}: {str(error)[:1000]}"})
            continue
        most = MAX_TEXT + len(line)
        too_long = f"makes a text of {len(text)} letters, where at most {most} are taken"
        _say({"fault": too_long} if len(text) > most else {"text": text})


def _renderer() -> Any:
    """transformers' own function that renders a template, without the rest of transformers.

    Its packages import models, a Hub's client and much else when they are imported, which takes seconds: here they are
    empty ones that only say where their modules are. Where the function needs more of them than that, they are imported
    as they are; it is the same function.
    """
    found = importlib.util.find_spec("transformers")
    places = list(found.submodule_search_locations or ()) if found else []
    empty = {"transformers": places, "transformers.utils": [str(Path(place) / "utils") for place in places]}
    for name, path in empty.items():
        package = ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package
    try:
        return importlib.import_module("transformers.utils.chat_template_utils").render_jinja_template
    except (ImportError, AttributeError):
        for name in [each for each in sys.modules if each.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        return importlib.import_module("transformers.utils.chat_template_utils").render_jinja_template


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def _bound_memory() -> None:
    """Bound the address space, where the system can: on others the caller's time limit stands alone."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return
    most = pages * resource.getpagesize() + MAX_TEMPLATE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
