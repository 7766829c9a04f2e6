from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from shards.errors import DamagedRecordError
from shards.records import Caption, Media, Origin, Record
from trainers.augment import AugmentConfig, EvalView, Interpolation, TrainView, draw_crop, resize, shrink_of

unhurried = settings(deadline=None)  # a busy machine is no failure

View = Callable[..., Tensor]


def record_of(*pictures: Image.Image, sized: bool = True, form: str = "PNG") -> Record:
    media, payload = [], {}
    for number, picture in enumerate(pictures):
        file = io.BytesIO()
        picture.save(file, form, quality=95)
        member = f"{number}.{form.lower()}"
        size = {"width": picture.width, "height": picture.height} if sized else {}
        media.append(Media(member=member, kind="image", **size))
        payload[member] = file.getvalue()
    origin = Origin(dataset="made", split="train", id="1")
    return Record(key="made-1", origin=origin, media=tuple(media), annotations=(Caption(text="one"),), payload=payload)


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row, from 0 to 255."""
    down, right = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([right * 255 // max(1, width - 1), down * 255 // max(1, height - 1), 0 * right], axis=2).astype(
            np.uint8
        )
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("view", [TrainView(32, AugmentConfig()), EvalView(32)])
@pytest.mark.parametrize("size", [(64, 48), (20, 90), (1, 1), (32, 32), (7, 300)])
def test_a_view_shows_any_picture_at_the_familys_size(view: View, size: tuple[int, int]) -> None:
    shown = view(record_of(ramp(*size)), rng())
    assert (shown.shape, shown.dtype, shown.is_contiguous()) == ((3, 32, 32), torch.uint8, True)


def test_the_same_generator_shows_the_same_and_another_something_else() -> None:
    view, record = TrainView(32, AugmentConfig()), record_of(ramp(80, 60))
    assert torch.equal(view(record, rng(4)), view(record, rng(4)))
    assert not torch.equal(view(record, rng(4)), view(record, rng(5)))


def test_evaluation_draws_nothing_and_shows_the_whole_picture() -> None:
    shown = EvalView(32)(record_of(ramp(200, 50)), generator := rng())
    assert generator.random() == rng().random()
    assert shown[0, 0, 0] < 8
    assert shown[0, 0, -1] > 247
    assert shown[1, 0, 0] < 8
    assert shown[1, -1, 0] > 247


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resizing_agrees_with_pillows_antialiased_filter(interpolation: str) -> None:
    noise = rng().integers(0, 256, (96, 140, 3)).astype(np.uint8)
    picture = np.asarray(
        Image.fromarray(noise).resize((140, 96), Image.Resampling.BOX).resize((150, 100), Image.Resampling.BICUBIC)
    )
    ours = EvalView(40, interpolation)(record_of(Image.fromarray(picture)), rng())  # type: ignore[arg-type]
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    theirs = np.asarray(Image.fromarray(picture).resize((40, 40), filters[interpolation]))
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs).mean() < 0.6


@unhurried
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    size=st.integers(1, 200),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    look=st.sampled_from(["noise", "black and white", "smooth"]),
    seed=st.integers(0, 2**32),
)
def test_every_pixel_of_a_resized_picture_is_pillows(
    *, height: int, width: int, size: int, interpolation: Interpolation, look: str, seed: int
) -> None:
    values = rng(seed).integers(0, 256, (height, width, 3))
    picture = (values if look == "noise" else values // 128 * 255).astype(np.uint8)
    if look == "smooth":
        picture = np.asarray(ramp(width, height))
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    theirs = np.asarray(Image.fromarray(picture).resize((size, size), filters[interpolation])).astype(int)
    ours = resize(torch.from_numpy(picture.copy()).permute(2, 0, 1), size, interpolation)
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= (1 if interpolation == "bilinear" else 2)


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((3, 128, 128), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    small = resize(torch.from_numpy(stripes), 16, "bicubic").float()
    assert (small - 127.5).abs().max() < 12  # without antialiasing, all black or all white


def test_flips_come_as_often_as_asked_and_never_at_zero() -> None:
    record = record_of(ramp(64, 64))

    def share(flip: float) -> float:
        view = TrainView(16, AugmentConfig(flip=flip))
        shown = [view(record, rng(seed)) for seed in range(200)]
        return float(np.mean([bool(each[0, 0, 0] > each[0, 0, -1]) for each in shown]))

    assert share(0) == 0
    assert share(1) == 1
    assert 0.35 < share(0.5) < 0.65


def test_switching_flips_off_changes_no_crop() -> None:
    record = record_of(ramp(64, 48))
    plain, flipped = (TrainView(16, AugmentConfig(flip=flip)) for flip in (0, 1))
    assert torch.equal(plain(record, rng(3)), flipped(record, rng(3)).flip(2))


@unhurried
@given(
    st.integers(1, 500),
    st.integers(1, 500),
    st.integers(0, 2**32),
    st.sampled_from([(0.2, 1.0), (0.5, 1.0), (0.01, 0.05), (1.0, 1.0)]),
)
def test_a_crop_lies_inside_and_keeps_to_its_bounds(
    height: int, width: int, seed: int, scale: tuple[float, float]
) -> None:
    crop = draw_crop(height, width, rng(seed), scale=scale, ratio=(3 / 4, 4 / 3))
    assert crop.height > 0
    assert crop.width > 0
    assert crop.top >= 0
    assert crop.left >= 0
    assert crop.top + crop.height <= height
    assert crop.left + crop.width <= width
    if min(crop.height, crop.width) >= 20:  # rounding to whole pixels matters less then
        assert 3 / 4 * 0.93 <= crop.width / crop.height <= 4 / 3 * 1.07


def test_crops_reach_every_part_and_every_allowed_size() -> None:
    crops = [draw_crop(300, 400, rng(seed), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)) for seed in range(500)]
    areas = np.array([crop.height * crop.width / 120_000 for crop in crops])
    assert areas.min() < 0.23
    assert areas.max() > 0.9
    assert min(crop.left for crop in crops) == 0
    assert max(crop.left + crop.width for crop in crops) == 400
    # Even in area: the mean of 0.2 … 1, less where a large crop of an odd aspect did not fit.
    assert 0.45 < areas.mean() < 0.62


def test_a_picture_too_long_for_any_crop_gives_its_middle() -> None:
    crop = draw_crop(10, 1000, rng(), scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3))
    assert (crop.height, crop.width, crop.top, crop.left) == (10, 13, 0, 493)


def test_a_record_without_sizes_is_cropped_all_the_same() -> None:
    view, picture = TrainView(16, AugmentConfig()), ramp(64, 48)
    assert torch.equal(view(record_of(picture), rng(1)), view(record_of(picture, sized=False), rng(1)))


def test_each_picture_of_a_pair_is_shown_by_its_position() -> None:
    record = record_of(Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue"))
    assert [EvalView(4)(record, rng(), position=n)[:, 0, 0].tolist() for n in (0, 1)] == [[255, 0, 0], [0, 0, 255]]
    with pytest.raises(DamagedRecordError, match="2 pictures and picture 2"):
        EvalView(4)(record, rng(), position=2)


@pytest.mark.parametrize("view", [TrainView(16, AugmentConfig()), EvalView(16)])
def test_bytes_that_are_no_picture_or_another_one_are_damage_of_that_record(view: View) -> None:
    record = record_of(ramp(20, 10))
    broken = Record(
        key=record.key, origin=record.origin, media=record.media, annotations=(), payload={"0.png": b"no picture"}
    )
    with pytest.raises(DamagedRecordError, match=r"'made-1': its '0\.png' member is not a picture"):
        view(broken, rng())
    other = Record(
        key=record.key,
        origin=record.origin,
        media=record.media,
        annotations=(),
        payload=record_of(ramp(21, 10)).payload,
    )
    with pytest.raises(DamagedRecordError, match="shows 21 x 10 pixels, its header says 20 x 10"):
        view(other, rng())


@pytest.mark.parametrize(
    "wrong", [{"scale": (0.5, 0.2)}, {"scale": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}, {"flip": 1.5}, {"blur": 1}]
)
def test_a_config_that_cannot_crop_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate(wrong)


@unhurried
@given(
    width=st.integers(40, 400),
    height=st.integers(40, 400),
    size=st.sampled_from([8, 24]),
    seed=st.integers(0, 9),
)
def test_dct_scaling_shows_nearly_the_same_crop_of_a_smooth_picture(
    *, width: int, height: int, size: int, seed: int
) -> None:
    record = record_of(ramp(width, height), form="JPEG")
    exact, scaled = (
        TrainView(size, AugmentConfig(dct_scaling=scaling, interpolation="bilinear"))(record, rng(seed)).int()
        for scaling in (False, True)
    )
    # A pixel of the shrunk picture spans some of the whole one, and the crop's edges may be off by half of it.
    step = 255 * 8 / min(width, height)
    assert (exact - scaled).abs().max() <= 2 + step


def test_dct_scaling_leaves_a_crop_the_pixels_that_the_model_wants() -> None:
    view, record = TrainView(64, AugmentConfig(dct_scaling=True)), record_of(ramp(300, 200), form="JPEG")
    plain = TrainView(64, AugmentConfig())
    shrinks = set()
    for seed in range(40):
        crop = view.draw(200, 300, rng(seed)).crop
        shrink = shrink_of(crop, 64)
        shrinks.add(shrink)
        assert shrink == 1 or min(crop.height, crop.width) >= 64 * shrink
        assert shrink == 1 or not torch.equal(view(record, rng(seed)), plain(record, rng(seed)))
        assert shrink > 1 or torch.equal(view(record, rng(seed)), plain(record, rng(seed)))
    assert shrinks == {1, 2}
