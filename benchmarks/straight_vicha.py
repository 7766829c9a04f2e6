"""ViCHA's published pretraining step, written straight from its description: what our step must equal and be faster than.

Three passes through the fusion layers, a second one through the text layers, negatives drawn one by one on the host, queues
that are cloned, a momentum update parameter by parameter, words predicted at every position. One process, fp32. Names of
parameters and inputs are the released ones, so that released weights load as they are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, normalize, softmax

from benchmarks.straight_towers import Bert, VisionBlock, VisionEncoder, WordPrediction
from model.families.vicha.config import Config

FOLLOWED = ("visual_encoder", "vision_proj", "text_encoder", "text_proj", "kw_encoder", "kw_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedBatch:
    """The inputs of a step under their published names; masks are 1 at real tokens."""

    image: Tensor  # (B, 3, H, W) normalised
    text_input_ids: Tensor  # (B, T)
    text_attention_mask: Tensor  # (B, T)
    mlm_input_ids: Tensor  # (B, T)
    mlm_labels: Tensor  # (B, T), -100 where nothing is predicted
    mim_noise: Tensor  # (B, P)
    kw_input_ids: Tensor | None = None  # (B, K)
    kw_attention_mask: Tensor | None = None  # (B, K)
    itm_neg_image_idx: Tensor | None = None  # (B,) instead of a draw
    itm_neg_text_idx: Tensor | None = None  # (B,) instead of a draw


class TextModel(nn.Module):
    """Bert with its word head, under the released prefix."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.bert = Bert(config.text, layers=config.text.layers, context_width=config.vision.width)
        words = self.bert.embeddings["word_embeddings"]
        assert isinstance(words, nn.Embedding)
        self.cls = nn.ModuleDict({"predictions": WordPrediction(config.text, words)})

    def words(self, ids: Tensor, mask: Tensor, image: Tensor, image_mask: Tensor) -> Tensor:
        """All layers on ids: (B, T, V) logits."""
        states = self.bert.fusion(self.bert.text(ids, mask)[-1], mask, image, image_mask)
        return self.cls["predictions"](states)  # type: ignore[no-any-return]


class StraightVicha(nn.Module):
    """The whole model. Sizes come from our config; every computation is spelt out here."""

    visual_encoder_m: VisionEncoder
    text_encoder_m: TextModel
    vision_proj_m: nn.Linear
    text_proj_m: nn.Linear
    image_queue: Tensor
    text_queue: Tensor
    queue_ptr: Tensor
    decoder_pos_embed: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, inner = config.vision.width, config.projection
        self.visual_encoder = VisionEncoder(config.vision, image_size=config.image_size, patch_size=config.patch_size)
        self.text_encoder = TextModel(config)
        self.vision_proj, self.text_proj = nn.Linear(width, inner), nn.Linear(config.text.width, inner)
        if config.concepts is not None:
            self.kw_encoder = Bert(config.text, layers=config.concepts.layers, context_width=None)
            self.kw_proj = nn.Linear(config.text.width, width)
        self.followed = [name for name in FOLLOWED if hasattr(self, name)]
        for name in self.followed:
            setattr(self, f"{name}_m", copy.deepcopy(getattr(self, name)).requires_grad_(False))
        self.temp = nn.Parameter(torch.tensor(config.contrast.temperature))
        self.itm_head = nn.Linear(config.text.width, 2)
        aligned = range(config.hierarchy.layers if config.hierarchy is not None else 0)
        self.vision_proj_hidden = nn.ModuleList(nn.Linear(width, inner) for _ in aligned)
        self.text_proj_hidden = nn.ModuleList(nn.Linear(config.text.width, inner) for _ in aligned)
        self._declare_decoder()
        queue = torch.randn(2, inner, config.contrast.queue_size)
        self.register_buffer("image_queue", normalize(queue[0], dim=0))
        self.register_buffer("text_queue", normalize(queue[1], dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, batch: PublishedBatch, alpha: float) -> dict[str, Tensor]:
        """Take one step's losses, weighted: `mlm`, `itc` (with the hierarchy), `itm`, `mim`; moves twin and queues."""
        with torch.no_grad():
            limits = self.config.contrast.temperature_range
            if limits is not None:
                self.temp.clamp_(*limits)
        ids, mask = batch.text_input_ids, batch.text_attention_mask
        image_states, image_hidden = self.visual_encoder(
            batch.image, self._concepts(batch, ""), hidden=self.config.hierarchy is not None
        )
        text_hidden = self.text_encoder.bert.text(ids, mask)
        text_states = text_hidden[-1]
        image_feat = normalize(self.vision_proj(image_states[:, 0]), dim=-1)
        text_feat = normalize(self.text_proj(text_states[:, 0]), dim=-1)

        with torch.no_grad():
            self._follow()
            twin_states, _ = self.visual_encoder_m(batch.image, self._concepts(batch, "_m"), hidden=False)
            image_feat_m = normalize(self.vision_proj_m(twin_states[:, 0]), dim=-1)
            text_feat_m = normalize(self.text_proj_m(self.text_encoder_m.bert.text(ids, mask)[-1][:, 0]), dim=-1)
            all_images = torch.cat([image_feat_m.t(), self.image_queue.clone().detach()], dim=1)
            all_texts = torch.cat([text_feat_m.t(), self.text_queue.clone().detach()], dim=1)
            right = torch.zeros(len(ids), all_texts.shape[1], device=ids.device)
            right.fill_diagonal_(1)
            image_targets = alpha * softmax(image_feat_m @ all_texts / self.temp, dim=1) + (1 - alpha) * right
            text_targets = alpha * softmax(text_feat_m @ all_images / self.temp, dim=1) + (1 - alpha) * right
        sim_i2t, sim_t2i = image_feat @ all_texts / self.temp, text_feat @ all_images / self.temp
        loss_i2t = -torch.sum(log_softmax(sim_i2t, dim=1) * image_targets, dim=1).mean()
        loss_t2i = -torch.sum(log_softmax(sim_t2i, dim=1) * text_targets, dim=1).mean()
        contrast = (loss_i2t + loss_t2i) / 2
        if self.config.hierarchy is not None:
            contrast = contrast + self.config.hierarchy.weight * self._hierarchy(image_hidden, text_hidden)
        self._enqueue(image_feat_m, text_feat_m)

        losses = {"itc": contrast}
        losses["itm"] = self._match(batch, sim_i2t, sim_t2i, text_states, image_states)
        losses["mlm"] = self._masked_words(batch, image_states, twin_states, alpha)
        if self.config.masked_image is not None:
            losses["mim"] = self.config.masked_image.weight * self._masked_patches(batch, text_states)
        return losses

    def _concepts(self, batch: PublishedBatch, suffix: str) -> Tensor | None:
        if self.config.concepts is None:
            return None
        encoder, project = getattr(self, f"kw_encoder{suffix}"), getattr(self, f"kw_proj{suffix}")
        return project(encoder.text(batch.kw_input_ids, batch.kw_attention_mask)[-1])  # type: ignore[no-any-return]

    def _follow(self) -> None:
        momentum = self.config.contrast.momentum
        for name in self.followed:
            pairs = zip(getattr(self, name).parameters(), getattr(self, f"{name}_m").parameters(), strict=True)
            for online, twin in pairs:
                twin.data = twin.data * momentum + online.data * (1.0 - momentum)

    def _enqueue(self, images: Tensor, texts: Tensor) -> None:
        size, start = self.image_queue.shape[1], int(self.queue_ptr)
        if size % len(images):
            raise ValueError(f"a queue of {size} does not take whole batches of {len(images)}; give a divisor of it")
        self.image_queue[:, start : start + len(images)] = images.t()
        self.text_queue[:, start : start + len(images)] = texts.t()
        self.queue_ptr[0] = (start + len(images)) % size

    def _hierarchy(self, image_hidden: list[Tensor], text_hidden: list[Tensor]) -> Tensor:
        settings = self.config.hierarchy
        assert settings is not None
        count = settings.layers
        weights = settings.layer_weights or (1.0,) * count
        right = torch.arange(len(image_hidden[0]), device=self.temp.device)
        total = torch.zeros((), device=self.temp.device)
        for place in range(count):
            image = self.vision_proj_hidden[place](image_hidden[place - count - 1][:, 0])
            text = self.text_proj_hidden[place](text_hidden[place - count - 1][:, 0])
            image, text = normalize(image, dim=-1), normalize(text, dim=-1)
            forth = cross_entropy(image @ text.detach().t() / self.temp, right)
            back = cross_entropy(text @ image.detach().t() / self.temp, right)
            total = total + weights[place] * (forth + back) / 2
        return total

    def _match(self, batch: PublishedBatch, sim_i2t: Tensor, sim_t2i: Tensor, texts: Tensor, images: Tensor) -> Tensor:
        bert, mask, count = self.text_encoder.bert, batch.text_attention_mask, len(texts)
        seen = torch.ones(images.shape[:2], device=images.device)
        with torch.no_grad():
            image_weights, text_weights = softmax(sim_t2i[:, :count], dim=1), softmax(sim_i2t[:, :count], dim=1)
            image_weights.fill_diagonal_(0)
            text_weights.fill_diagonal_(0)
        drawn_images, drawn_texts, drawn_masks = [], [], []
        for place in range(count):
            chosen = _draw(batch.itm_neg_image_idx, image_weights, place)
            drawn_images.append(images[chosen])
        for place in range(count):
            chosen = _draw(batch.itm_neg_text_idx, text_weights, place)
            drawn_texts.append(texts[chosen])
            drawn_masks.append(mask[chosen])
        positive = bert.fusion(texts, mask, images, seen)
        negative = bert.fusion(
            torch.cat([texts, torch.stack(drawn_texts)]),
            torch.cat([mask, torch.stack(drawn_masks)]),
            torch.cat([torch.stack(drawn_images), images]),
            torch.cat([seen, seen]),
        )
        logits = self.itm_head(torch.cat([positive[:, 0], negative[:, 0]]))
        labels = torch.cat([torch.ones(count, dtype=torch.long), torch.zeros(2 * count, dtype=torch.long)])
        return cross_entropy(logits, labels.to(logits.device))

    def _masked_words(self, batch: PublishedBatch, images: Tensor, twin_images: Tensor, alpha: float) -> Tensor:
        ids, mask = batch.mlm_input_ids, batch.text_attention_mask
        seen = torch.ones(images.shape[:2], device=images.device)
        with torch.no_grad():
            twin = self.text_encoder_m.words(ids, mask, twin_images, seen)
        logits = self.text_encoder.words(ids, mask, images, seen)
        hard = cross_entropy(logits.flatten(0, 1), batch.mlm_labels.flatten())
        soft = -torch.sum(log_softmax(logits, dim=-1) * softmax(twin, dim=-1), dim=-1)
        return (1 - alpha) * hard + alpha * soft[batch.mlm_labels != -100].mean()

    def _declare_decoder(self) -> None:
        settings, width = self.config.masked_image, self.config.vision.width
        if settings is None:
            return
        inner = settings.decoder_width if settings.decodes else width
        pixels = 3 * self.config.patch_size**2
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        if settings.decodes:
            self.decoder_embed = nn.Linear(width, inner)
            count = self.visual_encoder.pos_embed.shape[1]
            self.register_buffer("decoder_pos_embed", torch.zeros(1, count, inner))  # the released files hold it
            self.decoder_blocks = nn.ModuleList(
                VisionBlock(inner, settings.decoder_heads, 4 * inner, 1e-6) for _ in range(settings.decoder_layers)
            )
            self.decoder_norm = nn.LayerNorm(inner, eps=1e-5)
            setattr(self, "mae_proj_uni" if settings.fuses else "mae_proj", nn.Linear(inner, pixels))
        if settings.fuses:
            self.mae_proj = nn.Linear(width, pixels)

    def _masked_patches(self, batch: PublishedBatch, texts: Tensor) -> Tensor:
        settings = self.config.masked_image
        assert settings is not None
        patches = batch.mim_noise.shape[1]
        kept = int(patches * (1 - settings.mask_ratio))
        order = torch.argsort(batch.mim_noise, dim=1)
        restore = torch.argsort(order, dim=1)
        hidden = (restore >= kept).float()
        visible = self.visual_encoder.visible(batch.image, order[:, :kept])
        target = _cut(batch.image, self.config.patch_size)
        if settings.normalise_pixels:
            mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6) ** 0.5

        losses = []
        if settings.decodes:
            states = self._filled(self.decoder_embed(visible), restore) + self.decoder_pos_embed
            for block in self.decoder_blocks:
                states = block(states)
            predict = self.mae_proj_uni if settings.fuses else self.mae_proj
            losses.append(_error(predict(self.decoder_norm(states))[:, 1:], target, hidden))  # type: ignore[operator]
        if settings.fuses:
            states = self._filled(visible, restore)
            all_ones = torch.ones(states.shape[:2], device=states.device)
            states = self.text_encoder.bert.fusion(states, all_ones, texts, batch.text_attention_mask)
            losses.append(_error(self.mae_proj(states)[:, 1:], target, hidden))
        return torch.stack(losses).mean()

    def _filled(self, states: Tensor, restore: Tensor) -> Tensor:
        missing = restore.shape[1] + 1 - states.shape[1]
        tokens = torch.cat([states[:, 1:], self.mask_token.repeat(len(states), missing, 1)], dim=1)
        tokens = torch.gather(tokens, 1, restore.unsqueeze(-1).repeat(1, 1, states.shape[2]))
        return torch.cat([states[:, :1], tokens], dim=1)


def _draw(given: Tensor | None, weights: Tensor, place: int) -> int:
    if given is not None:
        return int(given[place].item())
    return int(torch.multinomial(weights[place], 1).item())


def _cut(image: Tensor, size: int) -> Tensor:
    batch, channels, height, width = image.shape
    rows, columns = height // size, width // size
    cut = image[:, :, : rows * size, : columns * size].reshape(batch, channels, rows, size, columns, size)
    return torch.einsum("bchpwq->bhwpqc", cut).reshape(batch, rows * columns, -1)


def _error(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    error = ((predicted - target) ** 2).mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()
