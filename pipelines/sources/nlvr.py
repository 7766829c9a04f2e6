"""NLVR: `dev.json`, one statement on each line about a drawn picture of three boxes, with six orders of the boxes.

    source.kind=nlvr source.annotations=nlvr/dev/dev.json source.media=nlvr/dev

Every order is a picture of its own, `images/<directory>/dev-<identifier>-<order>.png`, and becomes a record of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.source import Source, SourceConfig, Target
from pipelines.statements import find_picture, read_statements, split_in_name

_ORDERS = 6  # of three boxes


class Config(SourceConfig):
    """`split` is part of the pictures' names: train, dev, test; unset, it is read off the name of the file."""

    media: str
    """The folder of the pictures, at any level of the release: `nlvr`, `nlvr/dev` or `nlvr/dev/images`."""

    def split_name(self) -> str:
        return (split_in_name(self.annotations) if self.split is None else None) or super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config, folder), config=config, target=target)


def _pictures(config: Config, folder: MediaFolder) -> Iterator[Draft]:
    split = split_in_name(config.annotations) or config.split_name()
    seen: set[str] = set()
    for line in read_statements(config.annotations, what="NLVR's train.json, dev.json or test.json"):
        name = line.identifier or line.where
        for order in range(_ORDERS):
            id = f"{name}-{order}"
            draft = Draft(id=id, stem=id)
            if line.identifier is None:
                draft.problem = ("missing_field", f"{line.where} has no usable identifier")
            elif name in seen:
                draft.problem = ("duplicate_id", f"{line.where} repeats an earlier identifier")
            else:
                file = f"{split}-{id}.png"
                draft.media.append(Place(file=find_picture(folder, file, split=split, directory=line.directory)))
            with draft.refusing(id):
                draft.annotations.append(line.statement(id))
            yield draft
        seen.add(name)
