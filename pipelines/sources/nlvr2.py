"""NLVR2: `dev.json`, one statement about two photos on each line; a record holds both photos.

    source.kind=nlvr2 source.annotations=dev.json source.media=images

The photos are found by the identifier: `dev-850-0-1` speaks about `dev-850-0-img0.png` (left) and `dev-850-0-img1.png` (right).
All statements about the same two photos are one record, so that every pair is stored once; `source.one_record_per=statement`
makes a record of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.source import Source, SourceConfig, Target
from pipelines.statements import StatementLine, find_picture, read_statements, split_in_name
from shards.media import MediaProblem


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the name of the file: train, dev, test1."""

    media: str
    """The folder of the photos, at any level of the release: the one that holds `images`, `images` itself, or a split's."""
    one_record_per: Literal["pair", "statement"] = "pair"
    """A record for every pair of photos with all that is stated about it, or one for every statement."""

    def split_name(self) -> str:
        return (split_in_name(self.annotations) if self.split is None else None) or super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _drafts(config, folder), config=config, target=target)


def _drafts(config: Config, folder: MediaFolder) -> Iterable[Draft]:
    """Statements or pairs, in the order in which the file first names them."""
    drafts: dict[str, Draft] = {}
    repeated = 0
    taken: set[str] = set()
    for line in read_statements(config.annotations, what="NLVR2's train.json, dev.json or test1.json"):
        if line.identifier is None or line.identifier.count("-") < 2:
            drafts[line.where] = Draft(
                id=line.where, stem=line.where, problem=("missing_field", f"{line.where} has no usable identifier")
            )
            _state(drafts[line.where], line, id=line.where, taken=taken)
            continue
        pair = line.identifier.rpartition("-")[0]
        item = pair if config.one_record_per == "pair" else line.identifier
        if item in drafts and config.one_record_per == "statement":
            repeated += 1
            draft = Draft(id=item, stem=item, problem=("duplicate_id", f"{line.where} repeats an earlier identifier"))
            drafts[f"{item} again {repeated}"] = draft
            _state(draft, line, id=item, taken=set())
            continue
        if item not in drafts:
            drafts[item] = Draft(id=item, stem=item, media=_photos(pair, line, folder))
        _state(drafts[item], line, id=line.identifier, taken=taken)
    return drafts.values()


def _photos(pair: str, line: StatementLine, folder: MediaFolder) -> list[Place]:
    split = pair.partition("-")[0]
    return [
        Place(file=find_picture(folder, f"{pair}-img{side}.png", split=split, directory=line.directory))
        for side in (0, 1)
    ]


def _state(draft: Draft, line: StatementLine, *, id: str, taken: set[str]) -> None:
    with draft.refusing(id):
        if id in taken:
            raise MediaProblem("duplicate_id", f"{line.where} repeats an earlier identifier")
        taken.add(id)
        draft.annotations.append(line.statement(id))
