"""Released names: complete, one to one, and for any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha import Config
from model.families.vicha.model import Vicha
from model.families.vicha.published import export_published, import_published, published_names


def test_every_tensor_of_the_family_has_a_released_name_of_its_own(tiny_family: Any) -> None:
    for parts in ({}, {"concepts": None}, {"hierarchy": None, "masked_text": None}, {"masked_image": None}):
        family = tiny_family(**parts)
        names = published_names(family.config)
        assert names.keys() == family.state_dict().keys()
        released = [name for group in names.values() for name in group]
        assert len(released) == len(set(released))


def test_the_default_family_has_the_size_of_the_released_one() -> None:
    with torch.device("meta"):
        family = Vicha(Config())
    trainable = sum(value.numel() for value in family.parameters() if value.requires_grad)
    assert round(trainable / 1e6, 1) == 265.9  # as counted in the released pretraining model


def test_export_and_import_give_the_same_family(tiny_family: Any) -> None:
    family = tiny_family()
    other = tiny_family()
    with torch.no_grad():
        for value in other.parameters():
            value.add_(1.0)
    report = import_published(other, export_published(family))
    assert not report.missing + report.unexpected + report.resized + report.kept
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in family.state_dict().items())


def test_a_pretraining_file_fills_a_fine_tuned_family_of_another_picture_size(tiny_family: Any) -> None:
    pretrained = tiny_family()
    settings = {"queue_size": 8, "targets": "identity", "temperature_range": None}
    tuned = tiny_family(hierarchy=None, masked_text=None, masked_image=None, contrast=settings, image_size=24)
    report = import_published(tuned, export_published(pretrained))
    assert report.missing == ("queue.identities",)
    assert report.resized == ("student.image.positions", "twin.image.positions")
    gone = ("vision_proj_hidden", "text_proj_hidden", "mask_token", "mae_proj", "decoder_", "text_encoder")
    assert all(name.startswith(gone) for name in report.unexpected)
    assert {name for name in report.unexpected if name.startswith("text_encoder")} == {
        # The head's output matrix is a further name of the word embedding, which was taken.
        name
        for name in export_published(pretrained)
        if ".cls." in name and not name.endswith("decoder.weight")
    }
    assert torch.equal(tuned.student.text.embedding.words.weight, pretrained.student.text.embedding.words.weight)


def test_a_size_that_patches_do_not_divide_is_imported_as_published_fine_tuning_has_it(tiny_family: Any) -> None:
    uneven: dict[str, Any] = {"hierarchy": None, "masked_text": None, "masked_image": None}
    uneven |= {"image_size": 22, "border": "ignore"}
    tuned = tiny_family(**uneven)
    report = import_published(tiny_family(**uneven), export_published(tuned))
    assert not report.missing + report.unexpected + report.resized
    assert import_published(tuned, export_published(tiny_family())).resized


def test_without_a_twin_in_the_file_the_twin_starts_as_the_student(tiny_family: Any) -> None:
    family = tiny_family()
    stripped = {name: value for name, value in export_published(family).items() if "_m." not in name}
    other = tiny_family(projection=8)
    with torch.no_grad():
        other.twin.image.class_token.add_(1.0)
    report = import_published(other, stripped)
    assert report.missing
    assert all(name.startswith("twin.") for name in report.missing)
    assert torch.equal(other.twin.image.class_token, family.student.image.class_token)


def test_a_file_of_another_width_is_refused_by_name(tiny_family: Any) -> None:
    with pytest.raises(ValueError, match=r"_projection\.weight has shape \(8, 16\) in the file and \(4, 16\)"):
        import_published(tiny_family(projection=4), export_published(tiny_family()))
