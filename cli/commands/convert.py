"""`vlsurgery convert`: a GGUF file as a checkpoint."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlsurgery.cli.options import Session, standard


@standard
def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A model as llama.cpp stores it.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="A new directory for the checkpoint.")],
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option("--dtype", help="What floats are stored as.")
    ] = "bfloat16",
) -> None:
    """Write a GGUF file as a checkpoint.

    Writes weights, config, tokenizer and chat template into DIR, which opens here and in transformers. transformers
    dequantises the weights; says in how many bits the file holds each, and what rounding adds. Needs the package gguf
    (pip install 'vlsurgery[gguf]') and no case.

    \b
    Example:
      vlsurgery convert SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2/
    """
    if session.plan:
        session.console.emit(json.dumps({"plan": [{"step": "convert", "reads": str(file), "writes": [str(out)]}]}))
        session.console.show(f"would read {file} and write {out} in {dtype}")
        return
    from vlsurgery.probes.models import quiet_transformers
    from vlsurgery.probes.models.gguf import convert as write

    quiet_transformers()
    made = write(file, out, dtype)
    session.console.emit(json.dumps(asdict(made), indent=1, default=str))
    session.console.show(made.sentence())
    session.console.say(f"next: vlsurgery anatomy {out}")
