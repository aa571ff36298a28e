"""`vlsurgery convert`: a GGUF file as a checkpoint."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlsurgery.cli.options import RayOption, Session, standard


@standard
def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A model as llama.cpp stores it.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="A new directory for the checkpoint.")],
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option("--dtype", help="What floats are stored as.")
    ] = "bfloat16",
    max_shard_size: Annotated[
        str,
        typer.Option(
            "--max-shard-size", metavar="SIZE", help="The most that a file of weights holds, as 5GB or 800MB."
        ),
    ] = "5GB",
    ray: RayOption = None,
) -> None:
    """Write a GGUF file as a checkpoint.

    Writes weights, config, tokenizer and chat template into DIR, which opens here and in transformers. Weights are
    dequantised as transformers does, a few at a time; says in how many bits the file holds each, and what rounding
    adds. Killed, the same command goes on behind the last finished file. Needs the package gguf (pip install
    'vlsurgery[gguf]') and no case.

    \b
    Example:
      vlsurgery convert SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2/
    """
    from vlsurgery.cli.workflow.engines import engine_for_weights
    from vlsurgery.cli.workflow.process import tuned_for_weights
    from vlsurgery.surgery.runtime.byte_counts import parse_bytes
    from vlsurgery.surgery.runtime.urls import WRITTEN_TO, refuse_url_path

    nbytes = parse_bytes(max_shard_size)
    refuse_url_path(file, "a GGUF file is read from this machine. Copy it here first")
    refuse_url_path(out, WRITTEN_TO)
    if session.plan and ray is None:
        session.console.emit(json.dumps({"plan": [{"step": "convert", "reads": str(file), "writes": [str(out)]}]}))
        session.console.show(f"would read {file} and write {out} in {dtype}")
        return
    from vlsurgery.probes.models import quiet_transformers
    from vlsurgery.probes.models.gguf import convert as write

    quiet_transformers()
    if ray is not None and session.plan:
        _show_divided(session, file, out, dtype, nbytes, ray)
        return
    with tuned_for_weights((), with_torch=True), engine_for_weights(ray) as engine:
        console = session.console
        made = write(file, out, dtype, console.progress, console.say, engine, nbytes)
    console.emit(json.dumps(asdict(made), indent=1, default=str))
    console.show(made.sentence())
    console.say(f"next: vlsurgery anatomy {out}")


def _show_divided(session: Session, file: Path, out: Path, dtype: str, max_shard_bytes: int, ray: str) -> None:
    """Show what a conversion would read and write, and how a Ray cluster would divide it."""
    from vlsurgery.cli.workflow.divided import divided_conversion
    from vlsurgery.probes.models.gguf import planned
    from vlsurgery.surgery.runtime.byte_counts import in_words

    plan = planned(file, out, dtype, max_shard_bytes)
    divided = divided_conversion(ray, plan)
    step = {"step": "convert", "reads": str(file), "writes": [str(out)]}
    sizes = {"bytes_read": plan.bytes_read, "bytes_written": plan.layout.nbytes}
    session.console.emit(json.dumps({"plan": [step | sizes | {"ray": asdict(divided)}]}, indent=1))
    session.console.show(
        f"would read {in_words(plan.bytes_read)} of {file} and write {in_words(plan.layout.nbytes)} to {out}, {dtype}",
        f"divides: {divided.sentence()}",
    )
