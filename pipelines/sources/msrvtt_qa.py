"""MSRVTT-QA: `{train,val,test}_qa.json`, questions with one answer on MSR-VTT's clips `video<number>.mp4`."""

from __future__ import annotations

from pipelines.clip_questions import clip_questions, split_of_questions
from pipelines.drafts import Place, drafted_from_files
from pipelines.listed_media import ListedMedia
from pipelines.media_folder import MediaFolder
from pipelines.source import Source, SourceConfig, Target


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    media: str
    """The folder of the clips, in any depth and container."""

    def split_name(self) -> str:
        found = split_of_questions(self.annotations)
        return found if self.split is None and found else super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    listed = ListedMedia(folder, kind="video")

    def place(id: int | str) -> Place:
        return Place(kind="video", file=listed.stem(f"video{id}", str(id)))

    return drafted_from_files(
        folder, lambda: clip_questions(config.annotations, place=place), config=config, target=target
    )
