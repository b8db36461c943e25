"""Muon: orthogonal directions, skipped steps, and one result for any number of processes."""

import pytest
import torch
from torch import nn

from pipeline.config.load import parse_overrides, resolve
from pipeline.config.schema import ConfigError
from pipeline.optim.muon import Muon, orthogonalizer
from pipeline.optim.optimizer import build_optimizer
from tests.conftest import REPOSITORY
from tests.pipeline.launching import launch, relative_difference, weights


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    result = orthogonalizer((wide @ wide.T)[None])[0] @ wide
    return result if wide is matrix else result.T


MUON = ("optimizer.name=muon", "optimizer.learning_rate=1e-3", "training.ema_images=0")


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_directions_are_those_of_the_svd_with_equal_lengths(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.linspace(1, 3, shape[1])
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix * 1e-3)
    inner = u.T @ found @ vt.T
    assert ((inner.diagonal() > 0.6) & (inner.diagonal() < 1.3)).all(), "every singular value becomes about 1"
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3
    assert s.max() / s.min() > 1.5, "they were not alike before"


def test_the_iteration_on_the_gram_matrix_equals_the_published_one():
    torch.manual_seed(1)
    x = torch.randn(6, 30)
    expected = x / x.norm()
    for _ in range(5):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    assert torch.allclose(orthogonalized(x), expected, atol=1e-4)


def small_network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.GroupNorm(1, 8), nn.Flatten(), nn.Linear(8 * 16, 4))


def one_step(network: nn.Module, optimizer: Muon, found_inf: float | None = None) -> None:
    network(torch.randn(16, 3, 8, 8)).square().sum().backward()
    if found_inf:
        next(network.parameters()).grad.fill_(float("nan"))
    optimizer.found_inf = None if found_inf is None else torch.tensor(found_inf)
    optimizer.step()
    optimizer.zero_grad()


def test_a_non_finite_step_changes_neither_weights_nor_state():
    network = small_network()
    optimizer = Muon([{"params": list(network.parameters())}], lr=0.01)
    for found_inf in (None, 0.0):
        before = [p.clone() for p in network.parameters()]
        one_step(network, optimizer, found_inf)
        assert not any(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    before = [p.clone() for p in network.parameters()]
    state = {key: value.clone() for p in network.parameters() for key, value in optimizer.state[p].items()}
    one_step(network, optimizer, found_inf=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    after = {key: value for p in network.parameters() for key, value in optimizer.state[p].items()}
    assert all(torch.equal(state[key], after[key]) for key in state)


def test_matrices_of_one_size_are_orthogonalized_each_by_itself():
    torch.manual_seed(4)
    matrices = [torch.randn(6, 30), torch.randn(6, 9) * 100, torch.randn(6, 200) * 1e-4]
    together = orthogonalizer(torch.stack([x @ x.T for x in matrices]))
    for x, found in zip(matrices, together, strict=True):
        assert torch.allclose(found @ x, orthogonalized(x), atol=1e-5)


def test_an_update_that_the_device_rejects_changes_nothing():
    weight, bias = nn.Parameter(torch.randn(8, 3, 4, 4)), nn.Parameter(torch.randn(8))
    optimizer = Muon([{"params": [weight, bias], "weight_decay": 0.1}], lr=0.1)
    group = optimizer.param_groups[0]

    def update(value: float, applied: float) -> None:
        weight.grad, bias.grad = torch.full_like(weight, value), torch.full_like(bias, value)
        optimizer.found_inf = torch.tensor(1 - applied)
        with torch.no_grad():
            optimizer._muon([(weight, group)], torch.tensor(applied))
            optimizer._adam([bias], group)

    def everything() -> list[torch.Tensor]:
        states = [value for p in (weight, bias) for value in optimizer.state[p].values()]
        return [value.detach().clone() for value in (weight, bias, *states)]

    update(0.5, applied=1.0)
    before = everything()
    update(float("nan"), applied=0.0)
    assert len(before) == 6
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    update(0.5, applied=1.0)
    assert not any(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))


def test_vectors_move_as_by_torchs_adamw():
    torch.manual_seed(6)
    vectors = [nn.Parameter(torch.ones(5)) for _ in range(2)]
    ours = Muon([{"params": vectors[:1], "weight_decay": 0.1}], lr=0.01)
    theirs = torch.optim.AdamW(vectors[1:], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        vectors[0].grad = torch.randn(5)
        vectors[1].grad = vectors[0].grad.clone()
        ours.step()
        theirs.step()
    assert torch.allclose(*vectors, atol=1e-6)


def test_channels_last_weights_get_the_same_update():
    networks = [small_network(), small_network().to(memory_format=torch.channels_last)]
    for network in networks:
        torch.manual_seed(3)
        one_step(network, Muon([{"params": list(network.parameters())}], lr=0.01))
    for plain, last in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.allclose(plain, last, atol=1e-6)


def test_an_update_is_as_large_as_adams():
    network = small_network()
    weight = network[3].weight
    before = weight.detach().clone()
    one_step(network, Muon([{"params": list(network.parameters())}], lr=0.01))
    rms = (weight - before).square().mean().sqrt() / 0.01
    assert 0.1 < rms < 0.3


def test_decay_without_decoupling_is_refused():
    with pytest.raises(ConfigError, match="decoupled"):
        resolve(
            REPOSITORY / "launch/recipes/demo.yaml",
            parse_overrides(["optimizer.name=muon", "optimizer.decoupled_weight_decay=false"]),
        )


def test_wide_matrices_are_slowed_and_norms_do_not_decay():
    config = resolve(
        REPOSITORY / "launch/recipes/demo.yaml",
        parse_overrides(["optimizer.name=muon", "optimizer.weight_decay=0.1", "optimizer.base_fan_in=64"]),
    )
    groups = build_optimizer(small_network(), config).param_groups
    found = sorted((group["rate_scale"], group["weight_decay"], len(group["params"])) for group in groups)
    assert found == [(0.5, 0.1, 1), (1.0, 0.0, 4), (1.0, 0.1, 1)], "128 inputs, norms and biases, 48 inputs"


def test_muon_gives_the_same_weights_on_one_and_two_processes(face_shards, tmp_path):
    one, changing = tmp_path / "one", tmp_path / "changing"
    settings = (*MUON, "optimizer.schedule=constant")
    for out, processes, steps in ((one, 1, 12), (changing, 2, 6), (changing, 1, 12)):
        done = launch(face_shards, out, *settings, ranks=processes, steps=steps)
        assert done.returncode == 0, done.stderr
    assert relative_difference(weights(one), weights(changing)) < 1e-5
