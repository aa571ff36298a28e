"""Samples of lm-evaluation-harness, as --log_samples writes them: a line of JSON a document and filter."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vlsurgery.probes.harnesses.log import HarnessLog, LoggedAnswer
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.bounded_json import parse_json, read_json_file
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.regular_file import read_regular

RIGHT_METRICS = ("exact_match", "acc")
MAX_LOG_BYTES = 1 << 31  # of a file of answers; 20,000 long ones take a twentieth of that
_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>[^_]+)")
_KEYS = ("doc_id", "arguments", "resps")


@dataclass(frozen=True)
class _Line:
    """One line of the file. `where` names it in errors."""

    where: str
    sample: dict[str, Any]

    def fault(self, what: str) -> NoReturn:
        raise SurgeryError(f"{self.where}: {what}")


def read(path: Path) -> HarnessLog:
    """The answers of a samples file. A task with several filters has a line for each; the first filter's are read.

    Whether an answer was cut off is not logged; none is taken to be. Raises SurgeryError that names the line.
    """
    lines = list(_lines(path))
    if not lines:
        raise SurgeryError(f"{path}: holds no samples. Run lm_eval again with --log_samples.")
    first = lines[0].sample.get("filter")
    answers = [answer for line in lines if line.sample.get("filter") == first for answer in _answers(line)]
    name = _NAME.fullmatch(path.stem)
    return HarnessLog(path, name["task"] if name else path.stem, _model(path, name), answers)


def is_results(path: Path) -> bool:
    """Whether a JSON file is the aggregated results of lm-evaluation-harness."""
    try:
        data = read_json_file(path, MAX_LOG_BYTES)
    except OSError as error:
        raise SurgeryError(f"{path}: can't be read ({error.strerror}). Give the file of a log.") from error
    except ValueError as error:
        raise SurgeryError(f"{path}: not JSON: {error}. Copy it again.") from error
    return isinstance(data, dict) and "results" in data and ("n-shot" in data or "configs" in data)


def refuse_results(path: Path) -> NoReturn:
    """Aggregated results hold no completions: name the file beside them that does."""
    beside = sorted(path.parent.glob(f"samples_*_{path.stem.rpartition('_')[2]}.jsonl"))
    found = f"Import {', '.join(map(str, beside))}." if beside else "Run lm_eval again with --log_samples."
    raise SurgeryError(f"{path}: the results of lm-evaluation-harness without its completions. {found}")


def _lines(path: Path) -> Iterator[_Line]:
    try:
        content = read_regular(path, MAX_LOG_BYTES)
    except OSError as error:
        raise SurgeryError(f"{path}: can't be read ({error.strerror}). Give the file of a log.") from error
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        where = f"{path}, line {number}"
        try:
            sample = parse_json(raw)
        except ValueError as error:
            raise SurgeryError(f"{where}: not JSON ({error}). Copy the file again or run lm_eval again.") from error
        missing = [key for key in _KEYS if key not in sample] if isinstance(sample, dict) else list(_KEYS)
        if missing:
            raise SurgeryError(
                f"{where}: lacks {', '.join(missing)}. Expected a sample as lm_eval writes it with --log_samples."
            )
        yield _Line(where, sample)


def _model(path: Path, name: re.Match[str] | None) -> str | None:
    """The model's name, from the results that stand beside the samples."""
    results = path.with_name(f"results_{name['date']}.json") if name else path
    if results == path or not results.is_file():
        return None
    try:
        data = read_json_file(results, MAX_LOG_BYTES)
    except (OSError, ValueError) as error:
        raise SurgeryError(
            f"{results}: the results beside {path.name} can't be read ({error}). Copy them again, or move them away."
        ) from error
    model = data.get("model_name") if isinstance(data, dict) else None
    return model if isinstance(model, str) else None


def _answers(line: _Line) -> list[LoggedAnswer]:
    arguments = _arguments(line)
    responses = line.sample["resps"]
    answered = [each for each in responses if isinstance(each, list) and each] if isinstance(responses, list) else []
    if not len(answered) == len(arguments) == len(responses):
        line.fault(f"has {len(arguments)} requests and not as many responses. Run lm_eval again.")
    settings = {type(argument[1]) if len(argument) > 1 else None for argument in arguments}
    if settings == {dict}:
        written = [(argument, text) for argument, texts in zip(arguments, responses, strict=True) for text in texts]
        right = _right(line) if len(written) == 1 else None  # the metric is of all repeats together
        return [_written(line, argument, text, right) for argument, text in written]
    if settings == {str}:
        return [_chosen(line, arguments, responses)]
    return line.fault("has neither generated text nor a choice. Import tasks of generate_until or multiple_choice.")


def _arguments(line: _Line) -> list[list[Any]]:
    """The arguments of every request: [prompt, settings or continuation, ...].

    Since version 0.4.3 they are {"gen_args_0": {"arg_0": ..., "arg_1": ...}}, before it [[...]].
    """
    arguments = line.sample["arguments"]
    if isinstance(arguments, Mapping):
        arguments = [list(each.values()) if isinstance(each, Mapping) else each for each in arguments.values()]
    if (
        not isinstance(arguments, list)
        or not arguments
        or not all(isinstance(each, list) and each for each in arguments)
    ):
        line.fault("its arguments are not as lm_eval writes them.")
    return arguments


def _written(line: _Line, argument: list[Any], text: Any, right: bool | None) -> LoggedAnswer:
    if not isinstance(text, str):
        line.fault(f"a response is no text: {excerpt(text, 60)}.")
    prompt, conversation = _asked(argument[0])
    pictured = any(isinstance(each, Mapping) and each.get("visual") for each in argument[2:])
    return LoggedAnswer(
        id=str(line.sample["doc_id"]),
        prompt=prompt,
        conversation=conversation,
        text=text,
        target=_target(line),
        right=right,
        pictured=pictured,
    )


def _chosen(line: _Line, arguments: list[list[Any]], responses: list[Any]) -> LoggedAnswer:
    """The choice with the highest log-likelihood, as lm_eval's `acc` takes it, and the right one."""
    if len(arguments) < 2 or len({json.dumps(argument[0]) for argument in arguments}) > 1:
        line.fault("the choices do not follow one and the same prompt, so that what was chosen can't be told.")
    choices = [f"{_letter(place)}. {argument[1].strip()}" for place, argument in enumerate(arguments)]
    try:
        scores = [float(response[0][0]) for response in responses]
    except (TypeError, ValueError, LookupError, OverflowError):
        line.fault("its responses are no log-likelihoods.")
    chosen = scores.index(max(scores))
    prompt, conversation = _asked(arguments[0][0])
    return LoggedAnswer(
        id=str(line.sample["doc_id"]),
        prompt=prompt,
        conversation=conversation,
        text=choices[chosen],
        target=choices[_right_choice(line, [argument[1].strip() for argument in arguments], chosen)],
        generated=False,
    )


def _right_choice(line: _Line, choices: list[str], chosen: int) -> int:
    """The place of the choice that the target names, by its words or its number; `acc` decides where both could be."""
    target, right = (_target(line) or "").strip(), _right(line)
    named = [place for place, choice in enumerate(choices) if choice == target][:1]
    if re.fullmatch(r"[0-9]{1,9}", target) and int(target) < len(choices):
        named.append(int(target))
    fitting = {place for place in named if right is None or (place == chosen) == right}
    if len(fitting) != 1:
        line.fault(f"which choice is right can't be told from its target {excerpt(target, 60)} and its acc.")
    return fitting.pop()


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _right(line: _Line) -> bool | None:
    """Whether the task's own metric calls the answer right."""
    for metric in RIGHT_METRICS:
        value = line.sample.get(metric)
        if isinstance(value, bool | int | float):
            return value == 1
    return None


def _target(line: _Line) -> str | None:
    target = line.sample.get("target")
    return None if target is None else str(target)


def _asked(argument: Any) -> tuple[str, str]:
    """The last user message and the whole prompt. With a chat API the prompt is messages, as JSON."""
    text = argument[0] if isinstance(argument, list) and len(argument) == 1 else argument
    text = text if isinstance(text, str) else json.dumps(text)
    try:
        messages = parse_json(text)
    except ValueError:
        return text, text
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and {"role", "content"} <= m.keys() for m in messages
    ):
        return text, text
    users = [message["content"] for message in messages if message["role"] == "user"]
    return (users[-1], text) if users and isinstance(users[-1], str) else (text, text)
