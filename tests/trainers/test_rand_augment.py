"""What is drawn depends on the generator alone, and a batch gets what single pictures get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from trainers import rand_augment
from trainers.rand_augment import FILL, NAMES, Name, Operation, RandAugmentConfig, augment, draw_operations, strength


def pictures(count: int = 3, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 20, 24), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_a_batch_gets_what_single_pictures_get() -> None:
    config = RandAugmentConfig(count=3)
    batch = pictures(12)
    drawn = [draw_operations(config, np.random.default_rng(number)) for number in range(len(batch))]
    together = augment(batch, drawn)
    for number in range(len(batch)):
        assert torch.equal(together[number], augment(batch[number : number + 1], drawn[number : number + 1])[0])


def test_the_same_generator_draws_the_same_and_every_operation_comes_up() -> None:
    config = RandAugmentConfig(count=2)
    first = [draw_operations(config, np.random.default_rng(seed)) for seed in range(400)]
    assert first == [draw_operations(config, np.random.default_rng(seed)) for seed in range(400)]
    assert {operation.name for drawn in first for operation in drawn} == set(NAMES)
    lengths = np.bincount([len(drawn) for drawn in first], minlength=3) / len(first)
    assert lengths == pytest.approx([0.25, 0.5, 0.25], abs=0.08)  # each of two is done with chance 1/2
    signs = [operation.argument > 0 for drawn in first for operation in drawn if operation.name == "Rotate"]
    assert any(signs)
    assert not all(signs)


def test_auto_contrast_reaches_both_ends_unless_it_is_faithful() -> None:
    batch = pictures(1) // 4 + 60
    spread = augment(batch, [(Operation(name="AutoContrast"),)])
    assert (int(spread.min()), int(spread.max())) == (0, 255)
    assert not torch.equal(spread, augment(batch, [(Operation(name="AutoContrast"),)], faithful=True))


def test_sharpening_never_wraps_around_unless_it_is_faithful() -> None:
    checks = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    checks[..., ::2, ::2] = 255
    sharper = Operation(name="Sharpness", argument=1.9)
    proper, wrapped = (augment(checks, [(sharper,)], faithful=faithful) for faithful in (False, True))
    assert bool((proper[..., 2::2, 2::2][..., :-1, :-1] == 255).all())
    assert not torch.equal(proper, wrapped)


def test_moving_there_and_back_gives_the_middle_of_the_picture_again() -> None:
    batch = pictures(1)
    for name in ("TranslateX", "TranslateY"):
        offset = strength(name, 3)
        there_and_back = [(Operation(name=name, argument=offset), Operation(name=name, argument=-offset))]
        assert torch.equal(augment(batch, there_and_back)[..., 5:-5, 5:-5], batch[..., 5:-5, 5:-5])


def test_a_flat_picture_stays_flat_and_the_input_is_not_changed() -> None:
    flat = torch.full((1, 3, 9, 9), 77, dtype=torch.uint8)
    for name in ("AutoContrast", "Equalize", "Identity"):
        assert torch.equal(augment(flat, [(Operation(name=name),)]), flat)
    batch = pictures(2)
    before = batch.clone()
    augment(batch, [(Operation(name="Rotate", argument=30.0),)] * 2)
    assert torch.equal(batch, before)


def test_one_list_of_draws_per_picture_is_asked_for() -> None:
    with pytest.raises(ValueError, match="one list per picture"):
        augment(pictures(2), [()])


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", ["TranslateX", "TranslateY"])
def test_moving_by_whole_pixels_moves_as_nearly_whole_ones_do(name: Name, sign: int) -> None:
    batch = pictures(2)
    whole, nearly = (augment(batch, [(Operation(name=name, argument=sign * by),)] * 2) for by in (3.0, 3.00001))
    assert (whole.int() - nearly.int()).abs().max() <= 1
    far = augment(batch, [(Operation(name=name, argument=sign * 1000.0),)] * 2)
    assert torch.equal(far, torch.full_like(batch, FILL))


def test_sharpening_agrees_with_a_convolution() -> None:
    batch = pictures(2).float()
    kernel = torch.ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = (torch.nn.functional.conv2d(batch, kernel, groups=3) / 13).round()
    expected = (smooth + 0.5 * (batch[..., 1:-1, 1:-1] - smooth)).clamp(0, 255).to(torch.uint8)
    softer = augment(batch.to(torch.uint8), [(Operation(name="Sharpness", argument=0.5),)] * 2)
    assert torch.equal(softer[..., 1:-1, 1:-1], expected)


def test_a_picture_of_one_row_survives_every_operation() -> None:
    thin = torch.randint(0, 256, (1, 3, 1, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for name in NAMES:
        assert augment(thin, [(Operation(name=name, argument=strength(name, 7)),)]).shape == thin.shape


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_tables_agree_with_pillows(name: Name) -> None:
    picture = (pictures(1)[0] // 2 + 30).permute(1, 2, 0).numpy()
    stored = Image.fromarray(picture)
    by_pillow = ImageOps.autocontrast(stored) if name == "AutoContrast" else ImageOps.equalize(stored)
    ours = augment(torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous(), [(Operation(name=name),)])[0]
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(by_pillow)).max() <= 1


def test_what_a_device_would_compute_at_once_is_what_a_processor_computes_by_and_by() -> None:
    batch = pictures(3)
    tables = torch.randint(0, 256, (3, 3, 256), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert torch.equal(rand_augment._by_table_at_once(batch, tables), rand_augment._by_table_of_bytes(batch, tables))
    assert torch.equal(rand_augment._histograms_at_once(batch), rand_augment._histograms_by_plane(batch))


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ],
)
@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_on_a_device_is_augmented_as_single_pictures_are_by_a_worker(
    name: Name, faithful: bool, device: str
) -> None:
    batch = pictures(4)
    batch[1] //= 3  # a dark one
    drawn = [
        (Operation(name=name, argument=sign * strength(name, level)),)
        for sign, level in ((1, 7), (1, 2.5), (-1, 7), (1, 10))
    ]
    there = augment(batch.to(device), drawn, faithful=faithful).cpu().int()
    here = torch.cat([augment(each[None], [one], faithful=faithful) for each, one in zip(batch, drawn, strict=True)])
    difference = (there - here.int()).abs()
    # A pixel that is interpolated may be rounded otherwise; where values wrap around, 0 and 255 are neighbours.
    assert torch.minimum(difference, 256 - difference).max() <= 1
