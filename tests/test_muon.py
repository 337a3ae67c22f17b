"""The optimizer of matrices equals torch's but for bfloat16's rounding, and learns where a matrix has no full rank."""

import pytest
import torch

from serving.m3.muon import Muon, orthogonalise

SHAPES = [(256, 896), (896, 256), (64, 64), (128, 1152)]


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([ours], lr=1e-2)
    reference = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved, expected = (ours - start).detach(), (theirs - start).detach()
    assert (moved - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    mapped = u.T @ orthogonalise(matrix) @ vt.T  # diagonal, if the vectors stay
    values = mapped.diagonal()[s > 0.1 * s.max()]
    assert 0.6 < values.min() and values.max() < 1.25
    assert (mapped - torch.diag(mapped.diagonal())).norm() < 1e-3


def test_a_matrix_of_low_rank_keeps_its_rank() -> None:
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(256, 3, generator=generator) @ torch.randn(3, 896, generator=generator)
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values[2] > 0.6
    assert values[3] < 1e-3


def test_no_gradient_gives_a_finite_step() -> None:
    weight = torch.nn.Parameter(torch.ones(8, 4))
    weight.grad = torch.zeros(8, 4)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight, torch.ones(8, 4))
