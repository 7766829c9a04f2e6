"""The filter bank against the one that eP-ALM feeds its audio encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainers.sounds import FilterBankConfig, filter_bank, normalised


@pytest.mark.golden("epalm/audio_features")
def test_filter_banks_and_encoder_inputs_are_those_of_the_reference(case: Any) -> None:
    assert case.config["cases"]
    for name, part in case.config["cases"].items():
        config = FilterBankConfig(
            rate=part["sample_rate"],
            bins=part["mel_bins"],
            frames=part["target_length"],
            mean=case.config["norm_mean"],
            std=case.config["norm_std"],
        )
        bank = filter_bank(case.inputs[f"{name}.waveform"], config)
        torch.testing.assert_close(bank, case.expected[f"{name}.fbank"], atol=1e-3, rtol=0)
        torch.testing.assert_close(
            normalised(bank, config), case.expected[f"{name}.encoder_input"], atol=2e-4, rtol=1e-4
        )
