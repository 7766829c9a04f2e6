"""Walking tars of any writer, whole and damaged."""

from __future__ import annotations

import io
import random
import tarfile

import pytest
import xxhash

from shards.tar_walk import Loss, TarMember, TarWalk

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def packed(
    members: dict[str, bytes], *, form: int = tarfile.GNU_FORMAT, extra: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info in extra:
            tar.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def walked(tar: bytes, *, whole: bool = True) -> tuple[list[tuple[str, bytes]], list[Loss], TarWalk]:
    walk = TarWalk(io.BytesIO(tar), size=len(tar), whole=whole)
    found, losses = [], []
    for each in walk.walk():
        if isinstance(each, TarMember):
            found.append((each.name, walk.data(each)))
        else:
            losses.append(each)
    return found, losses, walk


def some_members(seed: int, *, longest: int) -> dict[str, bytes]:
    rng = random.Random(seed)
    letters = "abcxyz0189_-. éß日"
    return {
        f"{number}/" + "".join(rng.choices(letters, k=rng.randrange(1, longest))): rng.randbytes(
            rng.choice((0, 1, 511, 512, 1500))
        )
        for number in range(12)
    }


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_a_sound_tar_of_any_form_is_read_as_tarfile_reads_it(seed: int, form: str, whole: bool) -> None:
    members = some_members(seed, longest=25 if form == "ustar" else 200)
    tar = packed(members, form=FORMS[form])
    found, losses, walk = walked(tar, whole=whole)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert [name for name, _ in found] == archive.getnames()
    assert dict(found) == members
    assert losses == []
    assert walk.xxh3 == (xxhash.xxh3_64_hexdigest(tar) if whole else None)


def test_data_that_nobody_asks_for_changes_neither_places_nor_hashes() -> None:
    tar = packed(some_members(1, longest=150))
    _, _, read = walked(tar)
    skipped = TarWalk(io.BytesIO(tar), size=len(tar), whole=True)
    assert len(list(skipped.walk())) == 12
    assert (skipped.layout, skipped.xxh3) == (read.layout, read.xxh3)


def test_the_layout_names_places_and_names_but_not_contents() -> None:
    one, other, moved = ({"a.jpg": b"1" * 600}, {"a.jpg": b"2" * 600}, {"b.jpg": b"1" * 600})
    layouts = [walked(packed(members))[2].layout for members in (one, other, moved)]
    assert layouts[0] == layouts[1] != layouts[2]


def test_directories_and_devices_are_passed_over_and_links_are_named() -> None:
    folder, device, link = (tarfile.TarInfo(name) for name in ("folder", "null", "link.jpg"))
    folder.type, device.type, link.type, link.linkname = (
        tarfile.DIRTYPE,
        tarfile.CHRTYPE,
        tarfile.SYMTYPE,
        "/etc/passwd",
    )
    tar = packed({"a.jpg": b"x"}, extra=(folder, device, link))
    walk = TarWalk(io.BytesIO(tar), size=len(tar), whole=False)
    named = [(each.name, each.is_link) for each in walk.walk() if isinstance(each, TarMember)]
    assert named == [("link.jpg", True), ("a.jpg", False)]


@pytest.mark.parametrize("form", FORMS)
def test_wherever_a_tar_is_cut_what_is_whole_is_kept_and_the_loss_is_named(form: str) -> None:
    members = {
        f"{number}.jpg" if form == "ustar" else f"{number:0150d}.jpg": bytes([number]) * 700 for number in range(4)
    }
    tar = packed(members, form=FORMS[form])
    end = (
        len(tar.rstrip(b"\0")) // 512 * 512 + 512
    )  # where the closing blocks begin, as the last member's data is not zero
    for cut in range(0, end + 1, 256):
        found, losses, _ = walked(tar[:cut])
        assert list(members.items())[: len(found)] == found
        assert len(losses) == 1, cut
    assert walked(tar[: end + 512])[1] == []  # one closing block tells the end


@pytest.mark.parametrize("hit", range(6))
def test_a_damaged_header_costs_one_member(hit: int) -> None:
    members = {f"{number:03d}.jpg": bytes([number + 1]) * 900 for number in range(6)}
    tar = bytearray(packed(members))
    tar[hit * (512 + 1024) + 120] ^= 2
    found, losses, walk = walked(bytes(tar))
    assert [name for name, _ in found] == [name for number, name in enumerate(members) if number != hit]
    assert dict(found).items() <= members.items()
    assert [loss.offset for loss in losses] == [hit * (512 + 1024)]
    assert walk.xxh3 == xxhash.xxh3_64_hexdigest(bytes(tar))


def test_what_is_no_tar_at_all_is_a_loss_from_its_first_byte() -> None:
    found, losses, _ = walked(b"\xff\xd8 not a tar" * 500)
    assert found == []
    assert losses[0].offset == 0
