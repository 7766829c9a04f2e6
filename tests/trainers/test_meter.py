"""The numbers of an interval, and the digest of who sat where in a batch."""

from __future__ import annotations

import pytest
import torch

from trainers.distributed import Group
from trainers.meter import Meter, NonFiniteLossError, order_digest

SOUND, BAD = torch.tensor(0.0), torch.tensor(1.0)


def test_the_digest_adds_up_over_ranks_and_sees_a_swap() -> None:
    keys = [f"record-{number}" for number in range(8)]
    whole = order_digest(keys, 0)
    halves = (order_digest(keys[:4], 0) + order_digest(keys[4:], 4)) % 2**63
    assert whole == halves
    assert order_digest([keys[1], keys[0], *keys[2:]], 0) != whole


def test_an_interval_that_a_checkpoint_interrupted_ends_with_the_same_mean() -> None:
    values = [torch.tensor(value) for value in (0.1, 0.7, 1 / 3)]
    whole, first = Meter(Group()), Meter(Group())
    for step, value in enumerate(values):
        whole.add(step, {"loss": value}, bad=SOUND, keys=["k"], first_slot=0)
    whole.settle()
    first.add(0, {"loss": values[0]}, bad=SOUND, keys=["k"], first_slot=0)
    first.settle()
    second = Meter(Group(), resumed=first.settled)
    for step, value in enumerate(values[1:], start=1):
        second.add(step, {"loss": value}, bad=SOUND, keys=["k"], first_slot=0)
    second.settle()
    assert second.take() == whole.take()
    assert second.settled == ()


def test_a_loss_that_is_no_number_stops_the_run_naming_step_and_keys() -> None:
    meter = Meter(Group())
    meter.add(4, {"loss": torch.tensor(1.0)}, bad=SOUND, keys=["fine"], first_slot=0)
    values = {"loss": torch.tensor(torch.nan), "loss/match": torch.tensor(0.5)}
    meter.add(5, values, bad=BAD, keys=["odd-1"], first_slot=0)
    with pytest.raises(NonFiniteLossError, match=r"step 6: loss is not finite \(rank 0 saw odd-1\)"):
        meter.settle()
