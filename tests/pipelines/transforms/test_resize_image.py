from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.pictures import draw
from pipelines.transforms.resize_image import Config, ResizeImage
from shards.media import probe_image
from shards.records import Annotation, Caption, Detection, Media, Origin, Record, Reject

CAPTIONS: tuple[Annotation, ...] = (Caption(text="a"),)


def _quarters(size: tuple[int, int] = (80, 60), mode: str = "RGB") -> Image.Image:
    """Red, green, blue and white quarters: a turned or mirrored picture shows at once."""
    picture = Image.new("RGB", (2, 2))
    picture.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    return picture.resize(size, Image.Resampling.NEAREST).convert(mode)


def _saved(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}) | options)
    return out.getvalue()


def _record(*files: bytes, annotations: tuple[Annotation, ...] = CAPTIONS) -> Record:
    payload: dict[str, bytes] = {}
    media: list[Media] = []
    for number, data in enumerate(files):
        extension, width, height = probe_image(data)
        member = f"{number}.{extension}" if len(files) > 1 else extension
        payload[member] = data
        media.append(Media(member=member, kind="image", width=width, height=height))
    origin = Origin(dataset="d", split="s", id="7")
    return Record(key="d-s-7", origin=origin, media=tuple(media), annotations=annotations, payload=payload)


def _resized(record: Record, **config: Any) -> Record:
    result = ResizeImage(Config(**config))(record)
    assert isinstance(result, Record)
    for item in result.media:  # what the header says is what the bytes are
        extension, width, height = probe_image(result.payload[item.member])
        assert (item.member.rpartition(".")[2], item.width, item.height) == (extension, width, height)
    assert set(result.payload) == {item.member for item in result.media}
    return result


def _shown(record: Record) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(next(iter(record.payload.values())))).convert("RGB")).astype(int)


def _looks_like(record: Record, expected: Image.Image, within: int = 12) -> bool:
    width, height = record.media[0].width, record.media[0].height
    assert width
    assert height
    wanted = np.asarray(expected.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    # The middles of the four quarters; edges differ by the encoder.
    return all(
        bool(np.abs(_shown(record)[y, x] - wanted[y, x]).max() <= within)
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    )


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"shorter_side": 30}, (40, 30)),
        ({"bound": 40}, (40, 30)),
        ({"bound": 33}, (33, 25)),
        ({"shorter_side": 1}, (1, 1)),
        ({"shorter_side": 59}, (79, 59)),
    ],
)
def test_a_large_picture_gets_the_size_that_was_asked_for(config: dict[str, Any], size: tuple[int, int]) -> None:
    media = _resized(_record(_saved(_quarters())), **config).media[0]
    assert (media.width, media.height) == size


@pytest.mark.parametrize("config", [{"shorter_side": 60}, {"shorter_side": 500}, {"bound": 80}])
def test_a_small_picture_keeps_its_bytes(config: dict[str, Any]) -> None:
    record = _record(_saved(_quarters()))
    assert ResizeImage(Config(**config))(record) is record


def test_the_pixels_are_those_that_pillow_draws() -> None:
    noise = Image.effect_noise((120, 90), 60).resize((121, 95), Image.Resampling.BICUBIC).convert("RGB")
    wanted = np.asarray(noise.resize((48, 37), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(draw(_saved(noise, "PNG"), width=48, height=37).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_turned_picture_is_stored_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _saved(_quarters(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as raw:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(raw)
    small = _resized(_record(data), shorter_side=24)
    assert _looks_like(small, upright)


@pytest.mark.parametrize(
    ("kind", "mode", "extension"),
    [
        ("JPEG", "RGB", "jpg"),
        ("JPEG", "L", "jpg"),
        ("JPEG", "CMYK", "jpg"),
        ("PNG", "RGB", "png"),
        ("PNG", "P", "png"),
        ("PNG", "1", "png"),
        ("PNG", "LA", "png"),
        ("WEBP", "RGB", "webp"),
        ("BMP", "RGB", "png"),
        ("GIF", "P", "png"),
        ("TIFF", "RGB", "png"),
    ],
)
def test_pictures_of_every_kind_look_the_same_when_small(kind: str, mode: str, extension: str) -> None:
    picture = _quarters(mode=mode)
    small = _resized(_record(_saved(picture, kind)), shorter_side=30, quality=95)
    assert small.media[0].member == extension
    assert _looks_like(small, picture)


def test_sixteen_bits_become_eight_by_their_range() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    shown = _shown(_resized(_record(_saved(ramp, "PNG")), shorter_side=16))[:, :, 0]
    assert shown[0, 0] < 8
    assert shown[-1, -1] > 247
    assert abs(int(shown[8, 8]) - 136) <= 6


def test_opacity_is_kept_where_the_format_can_and_lies_on_white_where_not() -> None:
    half = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    half.paste((0, 0, 255, 255), (0, 0, 40, 20))
    record = _record(_saved(half, "PNG"))
    kept = Image.open(io.BytesIO(_resized(record, bound=20).payload["png"]))
    assert kept.mode == "RGBA"
    assert kept.getchannel("A").getpixel((10, 15)) == 0
    shown = _shown(_resized(record, bound=20, format="jpg"))
    assert shown[15, 10].min() > 245
    assert shown[4, 10].tolist() == pytest.approx([0, 0, 255], abs=12)


def _profile(*, standard: bool) -> bytes:
    """The profile of sRGB; or one that says green where sRGB says red, and has another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if standard:
        return profile
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")).replace(b"sRGB", b"test")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_colour_profile_is_applied_and_not_dropped(kind: str) -> None:
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    plain, standard, other = (
        _shown(_resized(_record(_saved(red, kind, **profile)), bound=20))[10, 10].tolist()
        for profile in ({}, {"icc_profile": _profile(standard=True)}, {"icc_profile": _profile(standard=False)})
    )
    assert plain == standard == pytest.approx([255, 0, 0], abs=3)
    assert other == pytest.approx([0, 255, 0], abs=12)


def test_a_format_that_was_asked_for_is_given_to_small_pictures_too() -> None:
    small = _resized(_record(_saved(_quarters(), "PNG")), bound=500, format="webp")
    assert (small.media[0].member, small.media[0].width) == ("webp", 80)


def test_boxes_shrink_with_the_first_picture_and_stay_inside() -> None:
    boxes = (Detection(box=(0.0, 30.0, 80.0, 60.0), label="a"), Detection(box=(8.0, 6.0, 16.0, 12.0), label="b"))
    small = _resized(_record(_saved(_quarters()), annotations=boxes), bound=33)
    found = [annotation.box for annotation in small.annotations if isinstance(annotation, Detection)]
    assert found[0] == pytest.approx((0.0, 12.5, 33.0, 25.0))
    assert found[1] == pytest.approx((3.3, 2.5, 6.6, 5.0))


def test_of_two_pictures_each_has_its_own_size() -> None:
    record = _record(_saved(_quarters((80, 60))), _saved(_quarters((20, 20)), "PNG"))
    small = _resized(record, bound=40)
    assert [(item.member, item.width) for item in small.media] == [("0.jpg", 40), ("1.png", 20)]
    assert small.payload["1.png"] is record.payload["1.png"]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_refused_by_name(kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    data = _saved(frames[0], kind, save_all=True, append_images=frames[1:])
    result = ResizeImage(Config(bound=20))(_record(data))
    assert isinstance(result, Reject)
    assert (result.reason, result.id) == ("unsupported", "7")


def test_a_broken_picture_is_refused_by_name() -> None:
    whole = _record(_saved(_quarters()))
    for end in (30, len(whole.payload["jpg"]) // 2):
        cut = Record(
            **{name: getattr(whole, name) for name in ("key", "origin", "media", "annotations")},
            payload={"jpg": whole.payload["jpg"][:end]},
        )
        result = ResizeImage(Config(bound=20))(cut)
        assert isinstance(result, Reject)
        assert result.reason == "truncated_media"


def test_the_same_picture_always_gives_the_same_bytes() -> None:
    data = _saved(Image.effect_noise((300, 200), 80).convert("RGB"))
    assert _resized(_record(data), bound=100).payload == _resized(_record(data), bound=100).payload


@pytest.mark.parametrize("config", [{}, {"bound": 3, "shorter_side": 3}, {"bound": 0}, {"bound": 3, "quality": 0}])
def test_a_config_without_one_size_is_refused(config: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Config(**config)  # type: ignore[arg-type]
