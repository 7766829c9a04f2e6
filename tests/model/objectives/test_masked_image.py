"""Masked pictures: what is hidden, what is scored, and how patches lie."""

from __future__ import annotations

import torch

from model.objectives.masked_image import MaskedImageConfig, MaskedImageModelling, patch_mask, pixel_patches


def test_kept_and_hidden_patches_are_all_patches() -> None:
    mask = patch_mask(torch.rand(3, 17), 0.75)
    assert mask.keep.shape == (3, 4)
    assert torch.equal(mask.hidden.sum(1), torch.full((3,), 13.0))
    assert torch.equal(mask.hidden.gather(1, mask.keep), torch.zeros(3, 4))


def test_patches_are_flattened_as_row_column_channel() -> None:
    pixels = torch.arange(1 * 3 * 5 * 7).float().view(1, 3, 5, 7)  # the last row and column belong to no whole patch
    patches = pixel_patches(pixels, 2)
    assert patches.shape == (1, 2 * 3, 12)
    second = pixels[0, :, 0:2, 2:4]
    assert torch.equal(patches[0, 1], second.permute(1, 2, 0).flatten())


def _decoder(**settings: bool) -> MaskedImageModelling:
    torch.manual_seed(0)
    config = MaskedImageConfig(decoder_width=8, decoder_layers=1, decoder_heads=2, **settings)
    return MaskedImageModelling(config, image_width=6, grid=4, patch_size=2)


def test_only_hidden_patches_are_scored() -> None:
    decoder, mask, pixels = (
        _decoder(normalise_pixels=False),
        patch_mask(torch.rand(2, 16), 0.75),
        torch.rand(2, 3, 8, 8),
    )
    visible = torch.randn(2, 5, 6)
    target = pixel_patches(pixels, 2)
    other = torch.where(mask.hidden[:, :, None].bool(), target, target + 5)
    found = decoder(visible, mask, pixels)
    changed = torch.nn.functional.fold(
        other.view(2, 16, 2, 2, 3).permute(0, 4, 2, 3, 1).reshape(2, 12, 16), (8, 8), kernel_size=2, stride=2
    )
    again = decoder(visible, mask, changed)
    assert not torch.equal(found.target, again.target)
    torch.testing.assert_close(found.loss, again.loss)


def test_normalised_targets_do_not_depend_on_brightness_or_contrast() -> None:
    decoder, mask, pixels = _decoder(), patch_mask(torch.rand(1, 16), 0.5), torch.rand(1, 3, 8, 8)
    visible = torch.randn(1, 9, 6)
    found, brighter = decoder(visible, mask, pixels), decoder(visible, mask, pixels * 3 + 1)
    torch.testing.assert_close(found.target, brighter.target, rtol=1e-3, atol=1e-3)


def test_the_order_of_visible_patches_does_not_matter() -> None:
    decoder, pixels = _decoder(), torch.rand(1, 3, 8, 8)
    noise = torch.rand(1, 16)
    mask = patch_mask(noise, 0.75)
    shuffle = torch.tensor([2, 0, 3, 1])
    swapped = noise.clone()
    swapped[0, mask.keep[0][shuffle]] = noise[0, mask.keep[0]]  # the same patches are kept, in another order
    other = patch_mask(swapped, 0.75)
    assert torch.equal(other.keep, mask.keep[:, shuffle])
    visible = torch.randn(1, 5, 6)
    moved = torch.cat([visible[:, :1], visible[:, 1:][:, shuffle]], dim=1)
    found, again = decoder(visible, mask, pixels).decoded, decoder(moved, other, pixels).decoded
    assert found is not None
    assert again is not None
    torch.testing.assert_close(found.predicted, again.predicted)


def test_the_fusion_tower_gets_mask_tokens_where_patches_are_hidden_and_its_loss_is_averaged_with_the_decoders() -> (
    None
):
    torch.manual_seed(0)
    config = MaskedImageConfig(mode="uni_cross_modal", decoder_width=8, decoder_layers=1, decoder_heads=2)
    both = MaskedImageModelling(config, image_width=8, grid=4, patch_size=2)
    torch.nn.init.constant_(both.mask_token, 7.0)
    mask, pixels, visible = patch_mask(torch.rand(2, 16), 0.75), torch.rand(2, 3, 8, 8), torch.randn(2, 5, 8)
    shown: list[torch.Tensor] = []
    found = both(visible, mask, pixels, lambda tokens: shown.append(tokens) or tokens)
    assert torch.equal((shown[0][:, 1:] == 7.0).all(dim=2), mask.hidden.bool())
    for row in range(2):
        assert torch.equal(shown[0][row, 1 + mask.keep[row]], visible[row, 1:])
    assert found.decoded is not None
    assert found.fused is not None
    torch.testing.assert_close(found.loss, (found.decoded.loss + found.fused.loss) / 2)
