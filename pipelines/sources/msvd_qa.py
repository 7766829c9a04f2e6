"""MSVD-QA: `{train,val,test}_qa.json`, questions with one answer on the clips `vid<number>`."""

from __future__ import annotations

from typing import ClassVar

from pipelines.clip_questions import clip_questions, split_of_questions
from pipelines.drafts import Draft, drafted_from_files
from pipelines.listed_media import ListedMedia
from pipelines.media_folder import MediaFolder
from pipelines.msvd_clips import MsvdClips
from pipelines.source import Source, SourceConfig, Target


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("annotations", "media", "mapping")

    media: str
    """The folder of the clips, in any depth and container."""
    mapping: str | None = None
    """`youtube_mapping.txt`, where the clips carry the names of the corpus and not `vid<number>`."""

    def split_name(self) -> str:
        found = split_of_questions(self.annotations)
        return found if self.split is None and found else super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)

    def drafts() -> list[Draft]:
        clips = MsvdClips(ListedMedia(folder, kind="video"), mapping=config.mapping)
        return clip_questions(config.annotations, place=clips.numbered)

    return drafted_from_files(folder, drafts, config=config, target=target)
