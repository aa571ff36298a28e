import torch
from torch import nn

from vlsurgery.probes.models.tables import embedded, folding_linear, is_plain_linear


def told_of(layer, read, use):
    """What a layer tells in a pass, with the gradients of what it read, its bias and its weight."""
    told = []
    layer.zero_grad()
    read = read.detach().clone().requires_grad_(True)
    with folding_linear(layer, lambda *pair: told.append(pair)):
        use(layer(read)).backward()
    return told, read.grad, layer


def test_a_layer_tells_what_makes_its_weights_gradient_and_passes_the_rest_on():
    torch.manual_seed(0)
    layer, read = nn.Linear(4, 3), torch.randn(2, 5, 4, requires_grad=True)
    layer(read).pow(2).sum().backward()
    weight, bias, below = layer.weight.grad.clone(), layer.bias.grad.clone(), read.grad.clone()
    ((states, gradient),), found, layer = told_of(layer, read, lambda made: made.pow(2).sum())
    torch.testing.assert_close(gradient.reshape(-1, 3).T @ states.reshape(-1, 4), weight)
    torch.testing.assert_close(layer.bias.grad, bias)
    torch.testing.assert_close(found, below)
    assert layer.weight.grad is None
    assert "forward" not in vars(layer)


def test_a_weight_that_is_read_past_its_layer_has_that_gradient_as_ever():
    layer, read = nn.Linear(4, 3, bias=False), torch.randn(2, 4)
    told, _, layer = told_of(layer, read, lambda made: made.sum() + (2 * layer.weight).sum())
    assert len(told) == 1
    assert torch.equal(layer.weight.grad, torch.full((3, 4), 2.0))


def test_layers_that_compute_otherwise_are_not_plain():
    class Scaled(nn.Linear):
        def forward(self, given):
            return 2 * super().forward(given)

    hooked = nn.Linear(1, 1)
    hooked.forward = hooked.forward  # as accelerate does
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))
    assert is_plain_linear(nn.Linear(1, 1))
    assert not any(map(is_plain_linear, (Scaled(1, 1), hooked, normed, nn.Embedding(1, 1))))


def test_rows_that_end_before_the_padding_token_are_embedded_too():
    embedding = nn.Embedding(9, 3, padding_idx=7)
    rows, ids = torch.arange(6.0).reshape(2, 3), torch.tensor([[1, 0, 1]])
    before = embedding.weight.detach().clone()
    assert torch.equal(embedded(embedding, rows, ids), rows[ids])
    assert embedding.padding_idx == 7
    assert torch.equal(embedding.weight, before)
