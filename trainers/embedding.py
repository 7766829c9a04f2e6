"""Both towers over a gallery, batch by batch, each rank its share; what they leave behind waits in bounded memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.family import Embed
from trainers.assembly import TrainedRun
from trainers.augment import EvalView
from trainers.config import AskConfig
from trainers.exam import Crew
from trainers.gallery import Gallery
from trainers.gather import gather_rows
from trainers.states import KeptStates, PackedTexts, rows_in_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What is compared by cosine; the same on every rank."""

    images: Tensor  # (images, D), unit norm
    texts: Tensor  # (texts, D), unit norm
    lengths: Tensor  # (texts,) tokens

    def similarity(self) -> Tensor:
        """Cosine of every picture with every text, in fp32 whatever the towers computed in: (images, texts).

        In bfloat16 a cosine has 256 steps per octave, so that many candidates tie and the truth loses each tie.
        """
        with torch.autocast(self.images.device.type, enabled=False):
            return self.images.float() @ self.texts.float().T


class GalleryTowers:
    """Runs a gallery through both towers; a batch always has the same members, so that it has the same states again."""

    def __init__(self, run: TrainedRun, gallery: Gallery, *, config: AskConfig, crew: Crew) -> None:
        self._run, self._gallery, self._config, self._crew = run, gallery, config, crew
        self._view = EvalView(run.processor.view.image_size)
        self._kept = KeptStates(config.state_bytes if config.k_test else 0)
        self.image_batches = crew.share(range(len(gallery.keys)), size=config.batch_size)
        self._text_batches = crew.share(range(len(gallery.texts)), size=config.batch_size)

    def features(self) -> Features:
        """Embed everything once; states are kept as far as there is room.

        Raises:
            DamagedRecordError: a picture cannot be read; it stops every rank, with its name.
        """
        crew, gallery = self._crew, self._gallery
        images, texts, lengths = [], [], []
        with crew.group.together():
            crew.say("images", 0, len(gallery.keys))
            for batch in self.image_batches:
                features, states = self._see(batch)
                images.append(features)
                self._kept.keep("images", batch, states)
                crew.say("images", batch.stop, len(gallery.keys))
            crew.say("texts", 0, len(gallery.texts))
            for batch in self._text_batches:
                features, states, mask = self._read(batch)
                texts.append(features)
                lengths.append(mask.sum(dim=1))
                self._kept.keep("texts", batch, states)
                crew.say("texts", batch.stop, len(gallery.texts))
        own_images = [image for batch in self.image_batches for image in batch]
        own_texts = [text for batch in self._text_batches for text in batch]
        return Features(
            images=gather_rows(crew.group, images, own_images, total=len(gallery.keys)),
            texts=gather_rows(crew.group, texts, own_texts, total=len(gallery.texts)),
            lengths=gather_rows(crew.group, lengths, own_texts, total=len(gallery.texts)),
        )

    def picture_states(self, batch: range) -> Tensor:
        """Give the states (n, P, Dv) of one of this rank's batches, once.

        Raises:
            DamagedRecordError: a picture cannot be read any more.
        """
        states = self._kept.take("images", batch)
        return self._see(batch)[1] if states is None else states

    def text_states(self, lengths: Tensor, chosen: Tensor) -> PackedTexts:
        """Put the states of some texts together, on every rank all of them; every rank must call it with the same ones.

        Args:
            lengths: (texts,) tokens of all texts.
            chosen: (texts,) bool, at least one true.

        Raises:
            OstrakaError: they fit neither into memory nor onto the disk.
        """
        crew, total = self._crew, len(lengths)
        turn = self._config.batch_size * crew.group.world
        packed: PackedTexts | None = None
        crew.say("text states", 0, total)
        for number, start in enumerate(range(0, total, turn)):
            texts = range(start, min(start + turn, total))  # one batch of each rank
            if not bool(chosen[texts.start : texts.stop].any()):
                continue
            own = self._text_batches[number : number + 1]  # none where the last turn does not go round
            with crew.group.together():
                parts = [self._states_of(batch) for batch in own]
            places = [text - start for batch in own for text in batch]
            states = gather_rows(crew.group, parts, places, total=len(texts))
            if packed is None:
                with crew.group.together():
                    packed = self._places_for(lengths, chosen, states)
            packed.put(texts, states)
            crew.say("text states", texts.stop, total)
        crew.say("text states", total, total)  # the last ones may be nobody's candidates
        assert packed is not None
        return packed

    def _places_for(self, lengths: Tensor, chosen: Tensor, like: Tensor) -> PackedTexts:
        """Find places for the chosen texts' states: in memory before anything else, or else on disk."""
        tokens, width = int(lengths[chosen].sum()), like.shape[-1]
        size = tokens * width * like.element_size()
        if size <= self._config.state_bytes:
            self._kept.make_room(size)
            return PackedTexts(lengths, chosen, like.new_empty(tokens, width))
        folder = Path(self._config.output or tempfile.gettempdir())
        return PackedTexts(lengths, chosen, rows_in_file(tokens, like, folder=folder))

    def _states_of(self, batch: range) -> Tensor:
        """The states (n, T, Dt) of one of this rank's batches of texts, once."""
        states = self._kept.take("texts", batch)
        return self._read(batch)[1] if states is None else states

    def _see(self, batch: range) -> tuple[Tensor, Tensor]:
        """Features (n, D) and states (n, P, Dv) of some pictures."""
        examples = self._gallery.picture_examples(self._view, batch)
        ready = self._run.processor(examples, [0] * len(examples), train=False).to(self._crew.group.device)
        found = self._run.family.predict(ready, Embed(images=True, texts=False))
        return found.image_features, found.image_states

    def _read(self, batch: range) -> tuple[Tensor, Tensor, Tensor]:
        """Features (n, D), states (n, T, Dt) and mask (n, T) of some texts."""
        examples = self._gallery.text_examples(batch)
        ready = self._run.processor(examples, [0] * len(examples), train=False).to(self._crew.group.device)
        found = self._run.family.predict(ready, Embed(images=False, texts=True))
        return found.text_features, found.text_states, found.text_mask
