"""The twin follows, is never trained, and never leads."""

from __future__ import annotations

import torch
from torch import nn

from model.momentum import follow, frozen_twin


def test_the_twin_moves_by_the_missing_share_and_the_student_stays() -> None:
    student = nn.Linear(3, 2)
    twin = frozen_twin(student)
    before = {name: value.clone() for name, value in twin.named_parameters()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    kept = [value.clone() for value in student.parameters()]
    follow(twin, student, momentum=0.9)
    for name, value in twin.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.1)
    assert all(torch.equal(a, b) for a, b in zip(kept, student.parameters(), strict=True))


def test_a_twin_that_has_arrived_stays_bit_for_bit() -> None:
    student = nn.Linear(64, 64)
    twin = frozen_twin(student)
    for _ in range(10):
        follow(twin, student, momentum=0.995)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), student.parameters(), strict=True))


def test_the_twin_takes_no_gradient() -> None:
    twin = frozen_twin(nn.Linear(3, 2))
    assert not twin(torch.randn(1, 3)).requires_grad
