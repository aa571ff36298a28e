"""Derivatives by coefficient of one number a prompt, for all prompts of a batch in one backward pass.

A prompt's slope by the coefficient of a block and source is the sum, over the block's modules and the prompt's tokens,
of <gradient of the module's output, directional derivative of that output along source less adapted>. Prompts of a
batch do not read each other, so the gradient of the sum of their numbers holds each prompt's own at its own tokens. No
parameter takes a gradient: memory is the weights and the activations.

Linear layers, embedding and head are linear in their weights, so the derivative is the module with the delta as its
weight. Every other module (norms, experts, scales) is differentiated forward by its own parameters.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.merge_arithmetic import row_products
from vlsurgery.probes.merge_parameters import MergeParameter, RowSpan
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.head import head_of, headless
from vlsurgery.probes.models.tables import embedded
from vlsurgery.probes.weight_parts import WeightParts

Fold = Callable[[Tensor, Sequence[Tensor]], None]
ROUTING_TOLERANCE = 0.02  # of the whole change, up to which the changes by expert may miss it: bfloat16 rounds so much
_TENSOR = object()  # stands for a tensor among the arguments of a call
Named = Mapping[str, Sequence[MergeParameter]]  # a module's own parameter -> the merged parts of it


class PromptSlopes:
    """Reads the slopes of a batch's prompts while the live merge runs backward.

    inputs: of a batch like those to come: the modules that run in it are watched. parts: what slopes are told of; by
    default the blocks.
    Raises ValueError in a backward pass where a module's output can't be told apart by prompts.
    """

    def __init__(self, live: InMemoryMerge, inputs: Mapping[str, Tensor], parts: WeightParts | None = None) -> None:
        self._live, self._parts = live, parts or WeightParts.blocks(live)
        model: Any = live.chat.model
        self._head, self._embedding = head_of(live.chat), model.get_input_embeddings()
        self._modules = _readers(live, inputs)
        self._anchor = torch.zeros((), device=live.chat.device, requires_grad=True)
        self._inside = False
        self._routed: dict[nn.Module, bool] = {}
        self._slopes = torch.zeros(0)
        self._picked = torch.zeros(0, dtype=torch.long)

    @contextmanager
    def watching(self, prompts: int, picked: Tensor) -> Iterator[Tensor]:
        """While open, backward passes of a batch's forward add to [prompts, parts, sources] float64 slopes.

        picked: [K] the row in the batch of each token that the head reads.
        """
        self._slopes = torch.zeros(prompts, len(self._parts.parts), len(self._live.sources), dtype=torch.float64)
        self._picked = picked.cpu()
        with ExitStack() as stack:
            stack.enter_context(_experts_in_turn(self._live.chat.model))
            for module in self._modules:
                stack.callback(module.register_forward_hook(self._watch, with_kwargs=True).remove)
            yield self._slopes

    def _watch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The module's output, which now tells its gradient."""
        if self._inside or not torch.is_grad_enabled():
            return output
        given, form = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in given if isinstance(leaf, Tensor)]
        others = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in given]
        leaves, shape = tree_flatten(output)
        told = []
        for at, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                fold = self._fold(module, _Call(form, others, at))
                leaf = _Telling.apply(leaf, self._anchor, fold, *(tensor.detach() for tensor in tensors))
            told.append(leaf)
        return tree_unflatten(told, shape)

    def _fold(self, module: nn.Module, call: "_Call") -> Fold:
        named = self._modules[module]
        if type(module).forward is nn.Linear.forward:
            return lambda gradient, given: self._fold_linear(module, named, gradient, given[0])
        if module is self._embedding and all(entry.is_rows for entry in named["weight"]):
            return lambda gradient, given: self._fold_embedding(module, named["weight"], gradient, given[0])
        return lambda gradient, given: self._fold_any(module, named, gradient, call, given)

    def _fold_linear(self, module: nn.Module, named: Named, gradient: Tensor, read: Tensor) -> None:
        """<gradient, delta read> of each token: the layer is linear in its weight."""
        slope, states = gradient.reshape(-1, gradient.shape[-1]), read.reshape(-1, read.shape[-1])
        for entry in named.get("weight", ()):
            if entry.is_rows:
                for rows in entry.chunks():
                    first = entry.first_row + rows.start
                    own = slope[:, first : first + rows.stop - rows.start]
                    for source, delta in self._live.deltas(entry, rows):
                        self._fold_rows(module, entry, source, rows, delta.to(states.dtype), own, states)
            else:
                for source, whole in self._whole(entry).items():
                    self._add(module, self._part(entry), source, row_products(states @ whole.to(states.dtype).T, slope))
        for entry in named.get("bias", ()):
            for source, whole in self._whole(entry).items():
                self._add(module, self._part(entry), source, slope.float() @ whole)

    def _fold_rows(
        self,
        module: nn.Module,
        entry: MergeParameter,
        source: int,
        rows: RowSpan,
        delta: Tensor,
        slope: Tensor,
        states: Tensor,
    ) -> None:
        """<slope, delta states> of each token; head by head where rows or columns of the delta belong to heads.

        delta: some rows, [rows, width]. slope: [tokens, rows]. states: [tokens, width].
        """
        heads = self._parts.heads.get(id(entry))
        if heads is None:
            self._add(module, self._part(entry), source, row_products(states @ delta.T, slope))
        elif heads.columns:
            self._add_by_part(heads.labels, source, (slope @ delta).float() * states.float())
        else:
            own = heads.labels[rows.start : rows.stop]
            self._add_by_part(own, source, (states @ delta.T).float() * slope.float())

    def _part(self, entry: MergeParameter) -> int:
        """The part that an entry is where it is not divided."""
        return self._parts.whole[id(entry)]

    def _fold_embedding(
        self, module: nn.Module, entries: Sequence[MergeParameter], gradient: Tensor, ids: Tensor
    ) -> None:
        """<gradient, delta's row of the token> of each token."""
        tokens, slope = ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
        for entry in entries:
            inside = ((tokens >= entry.first_row) & (tokens < entry.first_row + entry.pair.shape[0])).nonzero()[:, 0]
            rows, own = (tokens[inside] - entry.first_row).unique(return_inverse=True)
            for source, delta in self._live.deltas_of_rows(entry, rows):
                values = torch.zeros(len(tokens), device=slope.device)
                values[inside] = row_products(embedded(module, delta, own), slope[inside].float())
                self._add(module, self._part(entry), source, values)

    def _fold_any(
        self, module: nn.Module, named: Named, gradient: Tensor, call: "_Call", given: Sequence[Tensor]
    ) -> None:
        """<gradient, derivative of the output along the deltas> by forward-mode differentiation of the module."""
        for part in sorted({self._part(entry) for entries in named.values() for entry in entries}):
            for source in range(len(self._live.sources)):
                along = self._along(named, part, source)
                if along:
                    self._fold_along(module, part, source, along, gradient, call, given)

    def _fold_along(
        self,
        module: nn.Module,
        part: int,
        source: int,
        along: Mapping[str, Tensor],
        gradient: Tensor,
        call: "_Call",
        given: Sequence[Tensor],
    ) -> None:
        experts = self._parts.of_experts(part)
        routing = None if experts is None else self._routing(module, along, call, given)
        if experts is None or routing is None:
            change = self._derivative(module, along, call, given)
            self._add(module, part, source, gradient.float() * change.float())
            return
        for slot in range(routing.slots):
            change = self._derivative(module, along, call, routing.only(slot, given))
            own = (gradient.float() * change.float()).reshape(routing.tokens, -1).sum(-1, dtype=torch.float64).cpu()
            self._add_by_expert(experts, routing.experts[:, slot].cpu(), source, own)

    def _routing(
        self, module: nn.Module, along: Mapping[str, Tensor], call: "_Call", given: Sequence[Tensor]
    ) -> "Routing | None":
        """A module's routing, where it weighs experts as its arguments say: its change is then the sum of those of each
        place in the list of a token's experts. Tried when the module is first met."""
        routing = routing_of(given)
        if routing is not None and module not in self._routed:
            whole = self._derivative(module, along, call, given).float()
            slots = (self._derivative(module, along, call, routing.only(at, given)) for at in range(routing.slots))
            rest = whole - torch.stack([slot.float() for slot in slots]).sum(0)
            self._routed[module] = bool(rest.norm() <= ROUTING_TOLERANCE * whole.norm())
        return routing if self._routed.get(module) else None

    def _along(self, named: Named, part: int, source: int) -> dict[str, Tensor]:
        """A part's delta of each of the module's own parameters."""
        found: dict[str, Tensor] = {}
        for name, entries in named.items():
            for entry in entries:
                delta = self._whole(entry).get(source) if self._part(entry) == part else None
                if delta is not None:
                    found[name] = found[name] + delta if name in found else delta
        return found

    def _derivative(
        self, module: nn.Module, along: Mapping[str, Tensor], call: "_Call", given: Sequence[Tensor]
    ) -> Tensor:
        """Of one of the module's outputs, along a change of its parameters."""
        args, kwargs = call.arguments(given)
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._inside = True
        try:
            with forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                moved = {
                    f"module.{name}": forward_ad.make_dual(own[name].detach(), delta.to(own[name].dtype))
                    for name, delta in along.items()
                }
                output = functional_call(_Bare(module), moved, args, kwargs)
                leaf = tree_flatten(output)[0][call.leaf]
                value, tangent = forward_ad.unpack_dual(leaf)
                return torch.zeros_like(value) if tangent is None else tangent
        finally:
            self._inside = False

    def _whole(self, entry: MergeParameter) -> dict[int, Tensor]:
        """Source -> source less adapted, float32, laid out as the whole parameter; 0 beside the entry's part."""
        found: dict[int, Tensor] = {}
        for rows in entry.chunks():
            for source, delta in self._live.deltas(entry, rows):
                if source not in found:
                    found[source] = torch.zeros_like(entry.parameter, dtype=torch.float32)
                entry.of(found[source])[rows.start : rows.stop] = delta
        return found

    def _add(self, module: nn.Module, part: int, source: int, values: Tensor) -> None:
        """Sum values over each prompt's tokens. values: [K] or [prompts x tokens] or [prompts, ...]."""
        if module is self._head:
            each = torch.zeros(len(self._slopes), dtype=torch.float64)
            each.index_add_(0, self._picked, values.reshape(len(self._picked), -1).sum(1).double().cpu())
        else:
            each = self._by_prompt(values).reshape(len(self._slopes), -1).sum(1, dtype=torch.float64).cpu()
        self._slopes[:, part, source] += each

    def _add_by_part(self, labels: Tensor, source: int, values: Tensor) -> None:
        """Sum values over each prompt's tokens and over the columns of each part. values: [prompts x tokens, columns].
        labels: [columns] positions of parts."""
        each = self._by_prompt(values).reshape(len(self._slopes), -1, len(labels)).sum(1, dtype=torch.float64).cpu()
        self._slopes[:, :, source].index_add_(1, labels, each)

    def _add_by_expert(self, experts: Tensor, chosen: Tensor, source: int, values: Tensor) -> None:
        """Sum values over each prompt's tokens and by the expert of each. experts: [experts] positions of parts.
        chosen: [tokens] expert of each token; one that is not there does nothing. values: [tokens] float64."""
        prompt = torch.arange(len(values)) // (len(self._by_prompt(values)) // len(self._slopes))
        there = chosen < len(experts)
        at = (prompt[there], experts[chosen[there]])
        self._slopes[:, :, source].index_put_(at, values[there], accumulate=True)

    def _by_prompt(self, values: Tensor) -> Tensor:
        """Raises ValueError where values are not of so many prompts, each with as many tokens."""
        if values.shape[0] % len(self._slopes):
            raise ValueError(f"{tuple(values.shape)} values of {len(self._slopes)} prompts")
        return values


class _Call:
    """The arguments of a module's call, without its tensors, and which of its outputs is meant."""

    def __init__(self, form: TreeSpec, others: Sequence[Any], leaf: int) -> None:
        self._form, self._others, self.leaf = form, others, leaf

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rest = iter(tensors)
        leaves = [next(rest) if other is _TENSOR else other for other in self._others]
        args, kwargs = tree_unflatten(leaves, self._form)
        return args, kwargs


class _Telling(torch.autograd.Function):
    """The identity, which tells `fold` its gradient and the tensors that the module was given."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, fold: Fold, *given: Tensor) -> Tensor:  # noqa: ARG004
        ctx.fold = fold
        ctx.save_for_backward(*given)
        return output.clone()  # The class may change it in place.

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (gradient,), given = gradients, ctx.saved_tensors
        ctx.fold(gradient, given)
        return gradient, None, None, *(None for _ in given)


class Routing(NamedTuple):
    """The arguments by which a module of experts is told which of them each token goes to. experts: [tokens, slots].
    weights: position among the module's tensors of how much each counts, [tokens, slots]."""

    experts: Tensor
    weights: int

    @property
    def tokens(self) -> int:
        return self.experts.shape[0]

    @property
    def slots(self) -> int:
        return self.experts.shape[1]

    def only(self, slot: int, given: Sequence[Tensor]) -> list[Tensor]:
        """The module's tensors, with one of each token's experts counting."""
        weights = given[self.weights]
        alone = torch.zeros_like(weights)
        alone[:, slot] = weights[:, slot]
        return [alone if at == self.weights else tensor for at, tensor in enumerate(given)]


def routing_of(given: Sequence[Tensor]) -> Routing | None:
    """The routing among a module's tensors: whole numbers [tokens, slots], and as many weights; None without both."""
    for experts in given:
        if experts.dim() == 2 and experts.dtype in (torch.int64, torch.int32):
            for at, weights in enumerate(given):
                if weights.is_floating_point() and weights.shape == experts.shape:
                    return Routing(experts, at)
    return None


class _Bare(nn.Module):
    """A module without its hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.forward(*args, **kwargs)


@contextmanager
def _experts_in_turn(model: Any) -> Iterator[None]:
    """While open, a mixture runs its experts one after the other, which can be differentiated forward; grouped matrix
    products can't."""
    before = getattr(model.config, "_experts_implementation", None)
    if before is None:
        yield
        return
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _readers(live: InMemoryMerge, inputs: Mapping[str, Tensor]) -> dict[nn.Module, dict[str, list[MergeParameter]]]:
    """The modules that read merged parameters in a pass, each with those by name.

    A parameter whose own module does not run, because another reads it directly (the kernel of a gated delta net), or
    gives no output by prompts (an expert's), is the nearest module's around it that does.
    """
    entries: dict[Tensor, list[MergeParameter]] = {}
    for entry in live.entries:
        entries.setdefault(entry.parameter, []).append(entry)
    model: Any = live.chat.model
    by_prompt = _by_prompt(live.chat, inputs)
    found: dict[nn.Module, dict[str, list[MergeParameter]]] = {}
    for path, module in model.named_modules():
        for name, held in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if held in entries:
                reader, below = path, name
                while model.get_submodule(reader) not in by_prompt:
                    reader, _, last = reader.rpartition(".")
                    below = f"{last}.{below}"
                found.setdefault(model.get_submodule(reader), {})[below] = entries[held]
    return found


def _by_prompt(chat: ChatModel, inputs: Mapping[str, Tensor]) -> set[nn.Module]:
    """The modules that run in a pass and whose outputs are laid out prompt by prompt; model and head among them."""
    rows, tokens = inputs["input_ids"].shape
    found: dict[nn.Module, bool] = {}

    def note(module: nn.Module, args: object, output: Any) -> None:  # noqa: ARG001
        shapes = [leaf.shape for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]
        apart = all(shape and shape[0] in (rows, rows * tokens) for shape in shapes)
        found[module] = apart and found.get(module, True)

    with ExitStack() as stack, torch.no_grad():
        for module in chat.model.modules():
            stack.callback(module.register_forward_hook(note).remove)
        stack.enter_context(headless(chat))
        chat.model(**inputs, use_cache=False)
    return {module for module, apart in found.items() if apart} | {chat.model, head_of(chat)}
