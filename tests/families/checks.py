"""What must hold of a family that runs, each against transformers itself or against the model asked otherwise."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from families.build import NOISE, decoder, shared
from families.entries import Family
from families.tokens import HARMLESS
from PIL import Image
from torch import Tensor

from vlsurgery.probes.activations import capture
from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.gradients import prompt_gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.interventions import EVERYWHERE, ablate, add, record
from vlsurgery.probes.models import ChatModel, Loader, passes_text_on
from vlsurgery.probes.models.points import RunningModel
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.scoring import greedy_matches, refusal_choices, refusal_log_odds, scored_answers
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

SIZES: Final = ((56, 56), (90, 40), (31, 64))  # of the pictures, in pixels
ROUNDING: Final = 2e-4  # of float32 sums in another order, relative to the largest entry


def asked(pictures: bool) -> list[Prompt]:
    """Prompts of different lengths, in text and with pictures of mixed sizes."""
    texts = [Prompt(f"t{n}", f"r{n}", "harmless", text, "report") for n, text in enumerate(HARMLESS[:3])]
    if not pictures:
        return texts
    drawn = [Image.linear_gradient("L").convert("RGB").resize(size) for size in SIZES]
    seen = [
        Prompt(f"p{n}", f"r{n}", "harmless", HARMLESS[n], "report", "own", picture) for n, picture in enumerate(drawn)
    ]
    return texts + seen


class Opened:
    """A family's trio, opened when a check needs it."""

    def __init__(self, family: Family, root: Path) -> None:
        self.family, self.root = family, root

    def checkpoint(self, role: str) -> Checkpoint:
        return Checkpoint.open(self.root / role)

    @cached_property
    def adapted(self) -> ChatModel:
        return Loader(dtype="float32").load(self.checkpoint("adapted"))

    @cached_property
    def base(self) -> ChatModel:
        return Loader(dtype="float32").load(self.checkpoint("base"))

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Those that the family takes: some take no text without a picture."""
        every = asked(self.adapted.sees)
        return [prompt for prompt in every if self._takes(prompt)]

    def _takes(self, prompt: Prompt) -> bool:
        try:
            self.adapted.encode([prompt])
        except SurgeryError:
            if prompt.modality != "text":
                raise
            return False
        return True


def opens(trio: Opened) -> None:
    """Both models load; the adapted one sees, and takes pictures or text."""
    assert trio.base.sees is False, "the base is said to see"
    assert trio.adapted.sees == trio.family.sees, f"does not see: {'; '.join(trio.adapted.notes)}"
    assert trio.prompts, "takes no prompt"


def encoded(trio: Opened) -> None:
    """A text's token ids are those of the processor, where that takes text; the tokenizer's else, and of a base."""
    for prompt in (each for each in trio.prompts if each.image is None):
        for chat in (trio.adapted, trio.base):
            rendered = prompt.text if chat.template is None else chat.template.render(_turn(prompt.text))
            makers = (chat.processor, chat.tokenizer) if chat.sees else (chat.tokenizer,)
            assert chat.encode([prompt])[0].ids.tolist() == _ids(rendered, makers), f"{prompt.id} of {chat.name}"


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _ids(text: str, makers: Sequence[Any]) -> list[int]:
    """What the first maker that takes a text alone makes of it."""
    for maker in makers:
        with suppress(ValueError):
            made: list[int] = torch.as_tensor(maker(text=[text])["input_ids"])[0].tolist()
            return made
    raise AssertionError("nothing takes text")


def blocks(trio: Opened) -> None:
    """The decoder blocks are those of transformers' own decoder."""
    own = next(
        module
        for module in decoder(trio.adapted.model).modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == len(trio.adapted.blocks)
    )
    assert all(one is other for one, other in zip(own, trio.adapted.blocks, strict=True)), "other modules"


def grafted(trio: Opened) -> None:
    """The graft has the base's text weights, wherever the checkpoints share them, and the adapted ones comes back."""
    merge = InMemoryMerge(
        trio.adapted, align({"adapted": trio.checkpoint("adapted"), "base": trio.checkpoint("base")}), ["base"]
    )
    before = {name: value.clone() for name, value in trio.adapted.model.state_dict().items()}
    with merge.at(merge.everywhere(base=1.0)):
        wrong = [
            f"{tuple(target.shape)}"
            for target, source in shared(trio.family, trio.adapted.model, trio.base.model)
            if not torch.allclose(_shared_rows(target, source), source, rtol=0, atol=NOISE / 1000)
        ]
    assert not wrong, f"{len(wrong)} text weights are not the base's, the first of shape {wrong[0]}"
    after = trio.adapted.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the adapted weights are not back"


def _shared_rows(target: Tensor, source: Tensor) -> Tensor:
    return target[: len(source)] if target.ndim else target


def captured(trio: Opened) -> None:
    """Captured states are transformers' own hidden states, of text and of pictures."""
    chat = trio.adapted
    for prompt in trio.prompts:
        encoded = chat.encode([prompt])
        found = next(iter(capture(chat, encoded))).values[0]
        batch = next(iter(chat.batches(encoded)))
        with torch.no_grad():
            out: Any = chat.model(**batch.inputs, output_hidden_states=True, use_cache=False)
        states = out.hidden_states if out.get("hidden_states") is not None else out.language_model_outputs.hidden_states
        ran = [at for at, block in enumerate(chat.blocks) if prompt.image is not None or not passes_text_on(block)]
        assert len(states) == len(ran) + 1, f"{len(states)} states of transformers for {len(ran)} blocks that ran"
        # transformers' last state is behind the final norm
        for layer, own in zip(ran[:-1], states[trio.family.first_state :], strict=False):
            own = own[chat.blocks[0].config.altup_active_idx] if own.ndim == 4 else own
            close(found[:, layer], own[0, -len(found) :].float(), f"layer {layer} of {prompt.id}")
        for layer in {*range(1, len(chat.blocks))} - {*ran}:
            assert torch.equal(found[:, layer], found[:, layer - 1]), f"layer {layer} of {prompt.id} was not passed on"


def batched(trio: Opened) -> None:
    """A batch of N gives the same states as N singles, with pictures of mixed sizes."""
    chat = trio.adapted
    for pictured in (False, True):  # some processors put a token behind a pictured prompt
        encoded = [one for one in chat.encode(trio.prompts) if (one.prompt.image is not None) == pictured]
        whole = {}
        for part in capture(chat, encoded) if encoded else ():
            whole |= dict(zip(part.index, part.values, strict=True))
        for at, one in enumerate(encoded):
            close(whole[at], next(iter(capture(chat, [one]))).values[0], f"prompt {one.prompt.id}")


def scored(trio: Opened) -> None:
    """What is generated in batches is what singles generate, and what scoring says is generated."""
    chat, prompts = trio.adapted, trio.prompts
    batch = complete(chat, prompts, "", tokens=6)
    for prompt, completion in zip(prompts, batch, strict=True):
        single = complete(chat, [prompt], "", tokens=6)[0]
        assert single.ids == completion.ids, f"{prompt.id} alone {single.ids}, in a batch {completion.ids}"
    answers = [torch.tensor(completion.ids) for completion in batch]
    hits = greedy_matches(chat, scored_answers(chat, prompts, answers)).tolist()
    assert all(hits), f"scoring disagrees on {[p.id for p, hit in zip(prompts, hits, strict=True) if not hit]}"


def seeing(trio: Opened) -> None:
    """A picture changes the states, and another picture changes them otherwise."""
    chat = trio.adapted
    if not chat.sees:
        return
    drawn = (Image.linear_gradient, Image.radial_gradient)
    first, second = (shape("L").convert("RGB").resize((56, 56)) for shape in drawn)
    prompts = [Prompt(f"x{n}", "x", "harmless", HARMLESS[0], "report", "own", p) for n, p in enumerate((first, second))]
    one, other = (next(iter(capture(chat, chat.encode([prompt])))).values for prompt in prompts)
    assert not torch.allclose(one, other, atol=1e-5), "two pictures give the same states"


def intervened(trio: Opened) -> None:
    """Ablation leaves nothing along the direction anywhere, whose hooks all take hold; adding to the tokens of the
    picture and to all others is adding to every token, and adding nothing changes no bit."""
    chat = trio.adapted
    vector = torch.randn(RunningModel.of(chat).width, generator=torch.Generator().manual_seed(0))
    for prompt in trio.prompts[::3]:
        batch = next(iter(chat.batches(chat.encode([prompt]))))

        def logits(*open_ones: AbstractContextManager[None], inputs: Mapping[str, Tensor] = batch.inputs) -> Tensor:
            with ExitStack() as stack, torch.no_grad():
                for each in open_ones:
                    stack.enter_context(each)
                found: Tensor = chat.model(**inputs, use_cache=False).logits
            return found

        with ablate(chat, vector), record(chat, sites=EVERYWHERE[:2]) as states:
            logits()
        for point, hidden in states.passes[0].items():
            assert float((hidden @ vector).abs().max()) < ROUNDING * float(hidden.norm() * vector.norm()), str(point)
        plain = logits()
        assert torch.equal(logits(add(chat, vector, 0.0)), plain), "adding nothing changes something"
        if not chat.picture_ids:
            continue
        apart = logits(*(add(chat, vector, layers=1, tokens=kind) for kind in ("image", "text")))
        close(apart, logits(add(chat, vector, layers=1)), f"adding by kind to {prompt.id}")
        text = add(chat, vector, layers=1, tokens="image")
        assert torch.equal(logits(text), plain) == (prompt.image is None), f"tokens of the picture of {prompt.id}"


def half(trio: Opened) -> None:
    """In bfloat16 every prompt runs, and the states stay near those in float32."""
    chat = Loader(dtype="bfloat16").load(trio.checkpoint("adapted"))
    for prompt in trio.prompts:
        one, other = (next(iter(capture(c, c.encode([prompt])))).values.flatten() for c in (chat, trio.adapted))
        cosine = float(torch.cosine_similarity(one.double(), other.double(), dim=0))
        # A tokenizer of pictures (Chameleon) may take the next code for some patches.
        assert cosine > 0.7, f"cosine {cosine:.2f} on {prompt.id}"


def slopes(trio: Opened) -> None:
    """Each prompt's gradient by coefficient, from one pass of all, is what autograd gives for it alone."""
    chat = trio.adapted
    roles = {role: trio.checkpoint(role) for role in ("adapted", "base", "safety")}
    live = InMemoryMerge(chat, align(roles), ("base", "safety"))
    prompts, point = trio.prompts, live.everywhere(base=0.3, safety=0.1)
    batches = refusal_choices(chat, prompts, [torch.tensor([5])] * len(prompts), [torch.tensor([9])] * len(prompts))
    found = prompt_gradients(live, point, batches, [prompt.id for prompt in prompts])
    with live.at(point):
        torch.testing.assert_close(found.z, refusal_log_odds(chat, batches), rtol=1e-4, atol=1e-4)
    deltas = _deltas(live)
    parameters = _weights(live)
    with live.at(point), torch.enable_grad():
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for batch in batches:
            numbers = batch.log_odds(chat)
            for at, number in zip(batch.owner.tolist(), numbers, strict=True):
                gradients = torch.autograd.grad(number, [*parameters.values()], retain_graph=True, allow_unused=True)
                own = dict(zip(parameters, gradients, strict=True))
                expected = torch.tensor(
                    [[_inner(own, change) for change in row] for row in deltas], dtype=torch.float64
                )
                off = torch.linalg.vector_norm(found.jacobian[at].double() - expected)
                off /= torch.linalg.vector_norm(expected)
                assert off < ROUNDING / 2, f"prompt {prompts[at].id} is off by {float(off):.1e}"
        for parameter in parameters.values():
            parameter.requires_grad_(False)


def _deltas(live: InMemoryMerge) -> list[list[dict[str, Tensor]]]:
    """[blocks][sources] what one unit of a coefficient adds to each parameter that it moves."""
    parameters = _weights(live)
    start = {name: value.detach().clone() for name, value in parameters.items()}

    def moved(block: str, source: str) -> dict[str, Tensor]:
        with live.at({block: {source: 1.0}}):
            changes = {name: parameters[name].detach() - value for name, value in start.items()}
        return {name: change for name, change in changes.items() if change.any()}

    return [[moved(block, source) for source in live.sources] for block in live.blocks]


def _weights(live: InMemoryMerge) -> dict[str, Tensor]:
    """Parameters by name, and the buffers that a merge moves: Gemma 4 scales its layers by some."""
    moved = {id(entry.parameter) for entry in live.entries}
    buffers = {name: buffer for name, buffer in live.chat.model.named_buffers() if id(buffer) in moved}
    return {**dict(live.chat.model.named_parameters()), **buffers}


def _inner(gradients: dict[str, Tensor | None], change: dict[str, Tensor]) -> float:
    pairs = [(gradients[name], value) for name, value in change.items()]
    return sum(float((slope.double() * value.double()).sum()) for slope, value in pairs if slope is not None)


CHECKS: Final[dict[str, Callable[[Opened], None]]] = {
    "opens": opens, "ids": encoded, "blocks": blocks, "graft": grafted, "capture": captured, "batch": batched,
    "scoring": scored, "pictures": seeing, "slopes": slopes, "hooks": intervened, "bf16": half,
}  # fmt: skip


def close(one: Tensor, other: Tensor, what: str) -> None:
    scale = float(other.abs().max()) + 1e-6
    off = float((one - other).abs().max()) / scale
    assert off < ROUNDING, f"{what} is off by {off:.1e} of its largest entry"


def outcomes(trio: Opened, names: Sequence[str] = tuple(CHECKS)) -> dict[str, str]:
    """Check -> "" where it holds, else why not; what refuses in one line says "refused: ..." and ends the rest."""
    found: dict[str, str] = {}
    for name in names:
        try:
            CHECKS[name](trio)
            found[name] = ""
        except SurgeryError as error:
            found[name] = f"refused: {error}"
            if name == "opens":
                break
        except Exception as error:  # noqa: BLE001  what a table of outcomes is for
            found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found
