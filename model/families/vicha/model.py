"""The ViCHA family: one training step over its parts, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model.examples import Example, Paired, UnfitError
from model.families.vicha.batch import PairBatch
from model.families.vicha.config import Config
from model.families.vicha.towers import ConceptStates, Towers
from model.family import Decode, Embed, Family, Losses, Match, Progress, Rank
from model.feature_queue import FeatureQueue
from model.initialisation import xavier_matrices
from model.momentum import follow, frozen_twin
from model.objectives.contrast import Contrast, contrast, same_picture
from model.objectives.hierarchy import HierarchicalAlignment, Hierarchy
from model.objectives.masked_image import MaskedImage, MaskedImageModelling, patch_mask
from model.objectives.masked_text import MaskedText, masked_text
from model.objectives.match import Negatives, draw_negatives, match_loss
from model.towers.image import ImageStates, PixelNorm
from model.towers.text import TextStates


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """What `Embed` asks for; a side that was not asked for is `None`. States are what `match_pairs` reads."""

    image_features: Tensor | None = None  # (B, D) unit rows
    image_states: Tensor | None = None  # (B, 1 + P + K, Dv)
    text_features: Tensor | None = None  # (B, D) unit rows
    text_states: Tensor | None = None  # (B, T, Dt)
    text_mask: Tensor | None = None  # (B, T)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side's view of a batch: the student's with gradient, the twin's without."""

    concepts: ConceptStates | None
    seen: ImageStates
    read: TextStates
    read_masked: TextStates | None
    images: Tensor  # (B, D) unit features
    texts: Tensor  # (B, D) unit features


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The losses of one step and everything they were made of."""

    losses: Losses
    student: Side
    twin: Side
    contrast: Contrast
    negatives: Negatives
    match_logits: Tensor  # (3 B, 2)
    hierarchy: Hierarchy | None
    masked_text: MaskedText | None
    masked_image: MaskedImage | None
    visible: Tensor | None  # (B, 1 + kept, Dv), the picture tower's output on visible patches


class Vicha(Family):
    """Student towers, their momentum twin, queues, and one module per objective that has weights."""

    serves: ClassVar[frozenset[type[Example]]] = frozenset({Paired})

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = {"image_width": config.vision.width, "text_width": config.text.width}
        self.normalise = PixelNorm(config.pixel_mean, config.pixel_std)
        self.student = Towers(config)
        if config.initialisation == "xavier":
            xavier_matrices(self.student)
        self.temperature = nn.Parameter(torch.tensor(config.contrast.temperature))
        self.match = nn.Linear(config.text.width, 2)  # column 1 says "match"
        self.hierarchy: HierarchicalAlignment | None = None
        if config.hierarchy is not None:
            self.hierarchy = HierarchicalAlignment(config.hierarchy, projection=config.projection, **widths)
        self.masked_image: MaskedImageModelling | None = None
        if config.masked_image is not None:
            self.masked_image = MaskedImageModelling(
                config.masked_image,
                image_width=config.vision.width,
                grid=self.student.image.grid,
                patch_size=config.patch_size,
            )
        self.queue = FeatureQueue(
            config.projection, config.contrast.queue_size, with_identities=config.contrast.targets == "identity"
        )
        self.twin = frozen_twin(self.student)

    def forward(self, batch: PairBatch, progress: Progress) -> Losses:
        """Compute the losses of one micro-batch; in training also move the twin and fill the queue."""
        settings = self.config.contrast
        alpha = progress.ramp(settings.alpha) if settings.ramp == "first_epoch" else settings.alpha
        return self.step(batch, soften=alpha).losses

    def step(self, batch: PairBatch, *, soften: float) -> Step:
        """Compute one step with everything it is made of.

        Args:
            batch: B pairs with pictures.
            soften: share of the twin's soft targets in contrast and masked text, 0 to 1.

        Returns:
            Losses named `contrast`, `match`, and as configured `hierarchy`, `masked_text`, `masked_image`.

        Raises:
            ValueError: the batch lacks what a configured part needs.
        """
        config = self.config
        soften = soften if config.contrast.distil else 0.0
        if self.training:
            self._prepare()
        pixels = self._pixels(batch)
        patches = self.student.image.embed(pixels)  # shared by whole and masked pictures
        student = self._look(self.student, batch, patches, masked=config.masked_text is not None)
        with torch.no_grad():
            # Soft word targets are the twin's dearest part; without weight they are not computed.
            twin = self._look(
                self.twin, batch, self.twin.image.embed(pixels), masked=config.masked_text is not None and soften > 0
            )
        identity = batch.identity if config.contrast.targets == "identity" else None
        contrasted = contrast(
            images=student.images,
            texts=student.texts,
            twin_images=twin.images,
            twin_texts=twin.texts,
            queue=self.queue,
            temperature=self.temperature,
            soften=soften,
            identity=identity,
        )
        if self.training:
            self.queue.push(twin.images, twin.texts, batch.identity)
        negatives = self._negatives(batch, contrasted, identity)
        match_logits, fused_masked = self._fuse(student, negatives, batch)
        terms = {
            "contrast": config.contrast.weight * contrasted.loss,
            "match": config.match.weight * match_loss(match_logits, negatives.usable),
        }
        aligned = self._align(student)
        if aligned is not None and config.hierarchy is not None:
            terms["hierarchy"] = config.hierarchy.weight * aligned.loss
        words = self._predict_words(batch, fused_masked, twin, soften)
        if words is not None and config.masked_text is not None:
            terms["masked_text"] = config.masked_text.weight * words.loss
        visible, painted = self._paint(batch, pixels, patches, student.read)
        if painted is not None and config.masked_image is not None:
            terms["masked_image"] = config.masked_image.weight * painted.loss
        return Step(
            losses=Losses(terms, {"temperature": self.temperature.detach()}),
            student=student,
            twin=twin,
            contrast=contrasted,
            negatives=negatives,
            match_logits=match_logits,
            hierarchy=aligned,
            masked_text=words,
            masked_image=painted,
            visible=visible,
        )

    @torch.no_grad()
    def predict(self, batch: PairBatch, request: Embed | Match | Rank | Decode) -> Any:
        """Answer `Embed` with `Embeddings`, `Match` with the (B,) class-1 logits of the batch's own pairs.

        Raises:
            NotImplementedError: any other request.
        """
        if isinstance(request, Embed):
            return self._embed(batch, request)
        if isinstance(request, Match):
            found = self._embed(batch, Embed())
            assert found.image_states is not None
            assert found.text_states is not None
            return self._match(found.image_states, found.text_states, batch.text_mask)
        raise NotImplementedError(f"family 'vicha' answers Embed and Match, not {type(request).__name__}")

    @torch.no_grad()
    def match_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Say how well R texts match their pictures, from states computed before.

        Args:
            image_states: (R, S, Dv), or (1, S, Dv) where all texts are about one picture.
            text_states: (R, T, Dt).
            text_mask: (R, T), true or 1 at real tokens.

        Returns:
            (R,) raw class-1 logits.
        """
        return self._match(image_states, text_states, text_mask)

    @torch.no_grad()
    def judge_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor, similarity: Tensor) -> Tensor:
        """Let both experts speak on R pairs: the log-odds of a match plus the contrast's logit.

        Args:
            image_states: (R, S, Dv), or (1, S, Dv) where all texts are about one picture.
            text_states: (R, T, Dt).
            text_mask: (R, T), true or 1 at real tokens.
            similarity: (R,) cosines of the pairs.

        Returns:
            (R,) scores; the difference of both match logits is used, since training fixes nothing but it.
        """
        fused = self.student.fusion(text_states, text_mask, image_states)
        other, match = self.match(fused[:, 0]).unbind(1)
        return match - other + similarity / self.temperature  # type: ignore[no-any-return]

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Published rule: all but vectors and biases decay; so do the temperature and the learned single tokens."""
        return parameter.ndim != 1 and not name.endswith(".bias")

    def position_grids(self) -> dict[str, int]:
        """Say which tensors are learned position tables, and patches per side of their grids."""
        return {f"{side}.image.positions": self.student.image.grid for side in ("student", "twin")}

    @torch.no_grad()
    def _prepare(self) -> None:
        limits = self.config.contrast.temperature_range
        if limits is not None:
            self.temperature.clamp_(*limits)
        follow(self.twin, self.student, momentum=self.config.contrast.momentum)

    def _pixels(self, batch: PairBatch) -> Tensor:
        if batch.pixels is None:
            raise UnfitError("this batch holds no pictures; give every example one picture")
        return self.normalise(batch.pixels)  # type: ignore[no-any-return]

    def _look(self, towers: Towers, batch: PairBatch, patches: Tensor, *, masked: bool) -> Side:
        concepts = towers.note(batch.concept_ids, batch.concept_mask)
        seen = towers.see(patches, concepts)
        read, read_masked = towers.read_twice(batch.text_ids, batch.masked_ids if masked else None, batch.text_mask)
        return Side(
            concepts=concepts,
            seen=seen,
            read=read,
            read_masked=read_masked,
            images=towers.image_features(seen.top),
            texts=towers.text_features(read.top),
        )

    def _negatives(self, batch: PairBatch, contrasted: Contrast, identity: Tensor | None) -> Negatives:
        own = identity if identity is not None else torch.full_like(batch.identity, -1)
        noise = batch.match_noise
        if noise is None:
            noise = torch.rand(len(batch), 2, device=batch.text_ids.device)
        drawn = draw_negatives(
            contrasted.image_similarity, contrasted.text_similarity, same=same_picture(own), noise=noise
        )
        if batch.image_negatives is None or batch.text_negatives is None:
            return drawn
        return Negatives(
            images=batch.image_negatives,
            texts=batch.text_negatives,
            image_weights=drawn.image_weights,
            text_weights=drawn.text_weights,
            usable=drawn.usable,
        )

    def _fuse(self, student: Side, negatives: Negatives, pairs: PairBatch) -> tuple[Tensor, Tensor | None]:
        """Read pairs, negatives and masked texts against the pictures in one pass.

        Three of the four kinds of rows read their own picture, whose keys and values are computed once for all; only
        the texts with a drawn picture are strays.

        Returns:
            (3 B, 2) match logits, and the (B, T, Dt) fused states of the masked texts.
        """
        read, batch = student.read, len(student.texts)
        drawn_texts, drawn_mask = self._wrong_texts(pairs, read.top[negatives.texts], read.mask[negatives.texts])
        texts, masks = [read.top, drawn_texts], [read.mask, drawn_mask]
        if student.read_masked is not None:
            texts.append(student.read_masked.top)
            masks.append(student.read_masked.mask)
        fused = self.student.fusion(
            torch.cat([torch.stack(texts, dim=1).flatten(0, 1), read.top]),
            torch.cat([torch.stack(masks, dim=1).flatten(0, 1), read.mask]),
            student.seen.top,
            negatives.images,
        )
        own, drawn_images = fused[:-batch].unflatten(0, (batch, -1)), fused[-batch:]  # (B, 2 or 3, T, Dt), (B, T, Dt)
        logits = self.match(torch.cat([own[:, 0, 0], drawn_images[:, 0], own[:, 1, 0]]))
        return logits, None if student.read_masked is None else own[:, 2]

    def _wrong_texts(self, batch: PairBatch, drawn: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put texts that were made to be wrong in the place of those drawn from the batch: (B, T, Dt) states and (B, T) mask."""
        if batch.wrong_ids is None or batch.wrong_mask is None or batch.is_wrong is None:
            return drawn, mask
        made = self.student.text(batch.wrong_ids, batch.wrong_mask)
        chosen = batch.is_wrong[:, None]
        return torch.where(chosen[..., None], made.top, drawn), torch.where(chosen, made.mask, mask)

    def _align(self, student: Side) -> Hierarchy | None:
        if self.hierarchy is None:
            return None
        # The last state of either tower is left out: the main contrast covers it. Class tokens alone are normalised,
        # since nothing else of the lower states is used.
        count = self.hierarchy.config.layers
        pictures = [self.student.image.norm(layer[:, 0]) for layer in student.seen.layers[-1 - count : -1]]
        texts = [layer[:, 0] for layer in student.read.layers[-1 - count : -1]]
        return self.hierarchy(pictures, texts, temperature=self.temperature)  # type: ignore[no-any-return]

    def _predict_words(self, batch: PairBatch, fused: Tensor | None, twin: Side, soften: float) -> MaskedText | None:
        if fused is None:
            return None
        if batch.masked_positions is None or batch.masked_targets is None:
            raise ValueError("this batch holds no masked words, which the family is configured to predict")
        twin_logits = None
        if twin.read_masked is not None:
            with torch.no_grad():
                states = self.twin.fusion(twin.read_masked.top, batch.text_mask, twin.seen.top)
                twin_logits = self.twin.word_logits(states, batch.masked_positions)
        logits = self.student.word_logits(fused, batch.masked_positions)
        return masked_text(logits, batch.masked_targets, twin_logits, soften=soften)

    def _paint(
        self, batch: PairBatch, pixels: Tensor, patches: Tensor, read: TextStates
    ) -> tuple[Tensor | None, MaskedImage | None]:
        if self.masked_image is None:
            return None, None
        settings = self.masked_image.config
        noise = batch.patch_noise
        if noise is None:
            noise = torch.rand(patches.shape[:2], device=patches.device)
        mask = patch_mask(noise, settings.mask_ratio)
        visible = self.student.image.encode_visible(patches, mask.keep, class_position=settings.class_position)

        def fuse(tokens: Tensor) -> Tensor:
            # The roles change sides: picture tokens ask, and the words of the caption, none of them hidden, answer.
            return self.student.fusion(tokens, None, read.top, picture_mask=read.mask)  # type: ignore[no-any-return]

        return visible, self.masked_image(visible, mask, pixels, fuse)

    def _embed(self, batch: PairBatch, request: Embed) -> Embeddings:
        towers = self.student
        found: dict[str, Tensor] = {}
        if request.images:
            concepts = towers.note(batch.concept_ids, batch.concept_mask)
            seen = towers.see(towers.image.embed(self._pixels(batch)), concepts)
            found |= {"image_features": towers.image_features(seen.top), "image_states": seen.top}
        if request.texts:
            read = towers.text(batch.text_ids, batch.text_mask)
            found |= {"text_features": towers.text_features(read.top), "text_states": read.top}
            found["text_mask"] = batch.text_mask
        return Embeddings(**found)

    def _match(self, images: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
        fused = self.student.fusion(texts, mask, images)
        return self.match(fused[:, 0])[:, 1]  # type: ignore[no-any-return]
