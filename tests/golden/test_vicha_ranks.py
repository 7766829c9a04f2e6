"""Several processes against the published code: what each contrasts with, and what all write into the queue."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from model.families.vicha import Config
from model.families.vicha.model import Vicha
from model.families.vicha.published import export_published, import_published, published_names


def _run_rank(rank: int, *, world: int, folder: Path, family: Vicha, batch: Any, alpha: float) -> None:
    """Take one step as one of several processes and leave losses, gradient norms and state in the folder."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    step = family.step(batch, soften=alpha)
    step.losses.total.backward()
    released = published_names(family.config)
    assert step.hierarchy is not None
    found = {
        **{f"loss_{name}": value.detach() for name, value in step.losses.terms.items()},
        "loss_itc_main": step.contrast.loss.detach(),
        "loss_itc_hidden": step.hierarchy.loss.detach(),
        **{
            f"grad_norm.{released[name][0]}": value.grad.norm()
            for name, value in family.named_parameters()
            if value.grad is not None
        },
        **{name: value for name, value in export_published(family).items() if "queue" in name},
    }
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def _ranks(case: Any, vicha_family: Any, pair_batch: Any, folder: Path, *, targets: str) -> list[dict[str, Any]]:
    """Run the case's step on its number of processes with own or published targets of the hierarchical loss."""
    published = case.sibling(case.config["config_case"]).config
    base: Config = vicha_family(published).config
    assert base.hierarchy is not None
    hierarchy = base.hierarchy.model_copy(update={"rank_targets": targets})
    family: Vicha = vicha_family(published, hierarchy=hierarchy)
    import_published(family, case.weights() | {"queue_ptr": case.inputs["queue_ptr"]})
    family.train()
    world = case.config["world_size"]
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would import torch again for each process
    shared = {"world": world, "folder": folder, "family": family, "alpha": case.config["alpha"]}
    processes = [
        fork.Process(
            target=_run_rank, args=(rank,), kwargs={**shared, "batch": pair_batch(case.inputs, f"rank{rank}.")}
        )
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.golden("vicha/pretrain_two_ranks")
def test_every_process_computes_what_the_published_one_does(
    case: Any, vicha_family: Any, pair_batch: Any, close: Any, tmp_path: Path
) -> None:
    terms = {"loss_itm": "loss_match", "loss_mim": "loss_masked_image", "loss_mlm": "loss_masked_text"}
    for rank, found in enumerate(_ranks(case, vicha_family, pair_batch, tmp_path, targets="first")):
        found["loss_itc_total"] = found["loss_contrast"] + found["loss_hierarchy"]
        for name in [name for name in case.expected if name.startswith(f"rank{rank}.")]:
            plain = name.removeprefix(f"rank{rank}.")
            value, expected = found[terms.get(plain, plain)], case.expected[name]
            if plain.startswith("grad_norm."):
                assert value.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-6), name
            else:
                close(value, expected, name, atol=1e-6)
        close(found["image_queue"], case.expected["image_queue_after"], "image_queue_after", atol=1e-6)
        assert torch.equal(found["queue_ptr"], case.expected["queue_ptr_after"])


@pytest.mark.golden("vicha/pretrain_two_ranks")
def test_own_targets_change_the_hierarchical_loss_of_all_but_the_first_process(
    case: Any, vicha_family: Any, pair_batch: Any, close: Any, tmp_path: Path
) -> None:
    first, *others = _ranks(case, vicha_family, pair_batch, tmp_path, targets="own")
    close(first["loss_itc_hidden"], case.expected["rank0.loss_itc_hidden"], "rank0", atol=1e-6)
    for rank, found in enumerate(others, start=1):
        # Whether the right columns cost less is up to the case's random weights; that they cost otherwise is not.
        assert found["loss_itc_hidden"].item() != pytest.approx(case.expected[f"rank{rank}.loss_itc_hidden"].item())
