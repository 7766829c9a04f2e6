"""The candidates of a whole gallery, matched: each rank its pictures, one batch after the other, every finished batch kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.config import AskConfig
from trainers.embedding import GalleryTowers
from trainers.exam import Crew
from trainers.gather import gather_rows
from trainers.rerank import PairMatcher, match_picture
from trainers.score_parts import ScoreParts
from trainers.states import PackedTexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """What is matched, and by whom; the same on every rank but for its batches and its parts."""

    matcher: PairMatcher  # in evaluation mode
    towers: GalleryTowers
    lengths: Tensor  # (texts,) tokens
    similarity: Tensor  # (images, texts) cosines
    pairs: Tensor  # (pairs,) all candidates as image * texts + text, ascending
    config: AskConfig
    crew: Crew

    def scores(self, parts: ScoreParts) -> Tensor:
        """Match what is not matched yet, and put the scores of all ranks together: (pairs,).

        Every rank must call it.

        Args:
            parts: scores that are done already; those that are found are added.

        Raises:
            OstrakaError: there is no room on the disk, for states or for scores.
        """
        crew = self.crew
        images, texts = self.similarity.shape
        is_read = torch.zeros_like(self.lengths, dtype=torch.bool).index_fill_(0, self.pairs % texts, True)
        text_states = self.towers.text_states(self.lengths, is_read)
        steps = torch.arange(images + 1, device=self.pairs.device) * texts
        first = torch.searchsorted(self.pairs, steps).tolist()  # of each picture's pairs
        counts = {batch: first[batch.stop] - first[batch.start] for batch in self.towers.image_batches}
        scores = {batch: found for batch, count in counts.items() if (found := parts.find(batch, count)) is not None}
        done, total = sum(map(len, scores)), sum(map(len, counts))
        crew.say("match", done, total)
        with crew.group.together():
            for batch, count in counts.items():
                if count and batch not in scores:
                    scores[batch] = self._of_batch(batch, first, text_states, done=done, total=total)
                    parts.add(batch, scores[batch])
                    done += len(batch)
        crew.say("match", total, total)  # some pictures may be nobody's candidates
        places = [torch.arange(first[batch.start], first[batch.stop]) for batch in scores]
        return gather_rows(
            crew.group,
            [found.to(self.similarity.device) for found in scores.values()],
            torch.cat(places) if places else [],
            total=len(self.pairs),
        )

    def _of_batch(self, batch: range, first: list[int], text_states: PackedTexts, *, done: int, total: int) -> Tensor:
        """Match one batch of pictures: the scores of its pairs, one picture after the other."""
        states = self.towers.picture_states(batch)
        texts = self.similarity.shape[1]
        scores = []
        for number, image in enumerate(batch):
            near = self.pairs[first[image] : first[image + 1]] - image * texts
            if len(near):  # not so where only texts ask and this picture is near to none of them
                found = match_picture(
                    self.matcher,
                    states[number : number + 1],
                    near,
                    text_states,
                    self.similarity[image],
                    pairs_per_pass=self.config.match_batch_size,
                    scoring=self.config.scoring,
                )
                scores.append(found)
            self.crew.say("match", done + number + 1, total)
        return torch.cat(scores)
