"""One self-contained HTML page about datasets, runs or a whole demo: no network, light and dark, one script, for its search."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from jobs.quantities import count_text, duration_text
from jobs.report.ablation_section import ablation_section, read_ablation
from jobs.report.dataset_sections import datasets_section, size_text
from jobs.report.findings import Findings, find
from jobs.report.gallery import annotation_columns, gallery_section, seen_through
from jobs.report.learned import LearnedColumns
from jobs.report.learned_section import learned_section
from jobs.report.markup import Markup, join, tag, trusted
from jobs.report.measures import measures_section
from jobs.report.rejects import column_rejects, column_sentence, dataset_rejects, ledger_sentence, rejects_section
from jobs.report.room import Room
from jobs.report.run_sections import curves_section, recall_section, retrievals_section, timings_section
from jobs.report.search_section import SCRIPT, search_section
from jobs.report.soundness import look_for_damage, soundness_section
from jobs.report.stall_section import stall_section
from jobs.report.task_sections import headline, task_section
from shards.annotations import read_ledger
from shards.config import Config, digest
from shards.errors import ConfigError, InputError
from shards.reader import Dataset

STYLE = Path(__file__).with_name("style.css")
_FRAME = 32_768  # characters: style, header and the headings around the cards
_PARTS = 3  # the search and the pictures of duplicates take one of so many
_LONGEST_CONFIG = 40_000  # characters of one config


class ReportConfig(Config):
    """What to tell of and where to write it."""

    dataset: str | tuple[str, ...] = ()
    """One dataset or several."""
    run: str | tuple[str, ...] = ()
    """Run folders, folders of evaluations, or a folder that holds such folders (the demo's)."""
    output: str = "report.html"
    """The page."""
    title: str | None = None
    """The heading of the page."""
    records: int = Field(12, ge=0, le=500)
    """How many records to show of each dataset that is named, and of each column of annotations beside it; without such a
    name, of the first dataset found."""
    measured: int = Field(2000, ge=0)
    """Over how many records of each of these datasets, spread evenly, sizes, lengths and counts are measured."""
    verify: bool | None = None
    """Whether to verify the datasets while the page is written; unset: those of at most `verify_mib`."""
    verify_mib: float = Field(256, ge=0)
    """Up to which size, in MiB of shards, a dataset is verified where `verify` is unset."""
    page_mib: float = Field(8, ge=1)
    """About how large the page may become, in MiB: media are shown smaller, shorter or as stills to keep within it, and where
    that is not enough fewer records are shown."""
    retrievals: int = Field(10, ge=0, le=100)
    """How many of the best and of the worst retrievals to show."""
    predictions: int = Field(6, ge=0, le=100)
    """How many right and how many wrong answers, labels or maps of each such evaluation to show."""
    ablation: str | None = None
    """What `python -m benchmarks.ablation` printed, as a file."""
    searchable: int = Field(240, ge=0, le=10_000)
    """How many pictures of each of these datasets the page's search finds by their concepts."""
    concepts: str = "concepts"
    """The sidecar column of concepts, with its digest where a dataset has several."""


def write_report(config: ReportConfig) -> Path:
    """Write the page.

    Raises:
        ConfigError: nothing to tell of was named.
        InputError: a name leads to nothing, or the page cannot be written.
        DatasetError: a dataset is damaged.
    """
    page = build_page(_found(config), config)
    output = Path(config.output)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except OSError as error:
        raise InputError(
            f"{output}: the report cannot be written ({error.strerror or error}); choose another output"
        ) from error
    return output


def plan_report(config: ReportConfig) -> str:
    """Say in one line what a page would tell of; looks as `write_report` does, and writes nothing."""
    findings = _found(config)
    evaluations = len(findings.evaluations)
    counts = ((len(findings.datasets), "dataset"), (len(findings.runs), "run"), (evaluations, "evaluation"))
    return f"would tell of {', '.join(count_text(*count) for count in counts)} -> {config.output}"


def _found(config: ReportConfig) -> Findings:
    datasets, runs = _names(config.dataset), _names(config.run)
    if not datasets and not runs:
        raise ConfigError("nothing to report on: name dataset=FOLDER, run=FOLDER or both")
    return find(datasets, runs)


def build_page(findings: Findings, config: ReportConfig) -> str:
    """Compose the page of whatever was found."""
    sections = [section for section in _sections(findings, config) if section is not None]
    title = config.title or "Ostraka report"
    script = SCRIPT.read_text(encoding="utf-8") if any('class="find"' in section for section in sections) else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", trusted(STYLE.read_text(encoding="utf-8"))),
    )
    written = datetime.now(UTC)
    header = tag(
        "header",
        tag("p", "Ostraka", class_="mark"),
        tag("h1", title),
        tag("p", "About ", tag("code", ", ".join(findings.sources)), f", {written:%-d %B %Y}.", class_="quiet"),
        _figures(findings),
    )
    body = tag(
        "body",
        header,
        tag("main", *sections),
        tag("footer", "Written by ", tag("code", "python -m jobs report"), "."),
        None if script is None else tag("script", trusted(script)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _policy(script: str | None) -> str:
    """What a browser may do with the page: show what lies in it, and run no script but ours, whatever a caption holds."""
    digest_of = "" if script is None else base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    run = "'none'" if script is None else f"'sha256-{digest_of}'"
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src {run}; "
        "form-action 'none'; base-uri 'none'"
    )


def _sections(findings: Findings, config: ReportConfig) -> Iterator[Markup | None]:
    """The sections in their order. Galleries take what the others leave of the page, so they are made last."""
    before, after = list(_about_runs(findings, config)), list(_about_data(findings, config))
    measured = [
        measures_section(dataset, sample=config.measured) if config.measured else None for dataset in findings.shown
    ]
    room = Room(left=round(config.page_mib * 2**20) - _FRAME)
    for section in (*before, *after, *measured):
        room.spend(section or Markup())
    yield from before
    for number, (dataset, histograms) in enumerate(zip(findings.shown, measured, strict=True)):
        here = Room(left=room.share(len(findings.shown) - number))
        for section in _about_records(dataset, findings, config, here):
            room.spend(section or Markup())
            yield section
        yield histograms
    yield from after


def _about_runs(findings: Findings, config: ReportConfig) -> Iterator[Markup | None]:
    retrievals = findings.retrievals
    if retrievals:
        yield recall_section(retrievals)
        yield retrievals_section(retrievals[-1], findings.locator(retrievals[-1]), count=config.retrievals)
    for number, evaluation in enumerate(findings.task_evaluations):
        locator = findings.locator(evaluation)
        yield task_section(evaluation, locator, count=config.predictions, name=f"task-{number}")


def _about_records(dataset: Dataset, findings: Findings, config: ReportConfig, room: Room) -> Iterator[Markup | None]:
    """A dataset's records, a search among them, and what was learned about them."""
    columns = LearnedColumns(dataset, concepts=config.concepts)
    small = Room(left=room.share(_PARTS))  # most of the page is for the galleries
    name = f"find-{findings.shown.index(dataset)}"
    search = search_section(dataset, columns, pictures=config.searchable, room=small, name=name)
    learned = learned_section(dataset, columns, room=small)
    room.spend(search or Markup())
    room.spend(learned or Markup())
    if config.records:
        yield from _galleries(dataset, columns, findings, config, room)
    yield search
    yield learned


def _galleries(
    dataset: Dataset, columns: LearnedColumns, findings: Findings, config: ReportConfig, room: Room
) -> Iterator[Markup | None]:
    """A dataset's records with their own annotations, and again with those of every column that was attached."""
    shown: list[tuple[str | None, Dataset]] = [(None, dataset), *seen_through(dataset, annotation_columns(dataset))]
    for number, (column, view) in enumerate(shown):
        own = Room(left=room.share(len(shown) - number))
        before = own.left
        yield gallery_section(
            view,
            records=config.records,
            columns=columns if column is None else None,
            agreements=findings.agreements,
            room=own,
            name=f"records-{findings.shown.index(dataset)}-{number}",
            column=column,
        )
        room.left -= before - own.left


def _about_data(findings: Findings, config: ReportConfig) -> Iterator[Markup | None]:
    if config.ablation is not None:
        yield ablation_section(read_ablation(config.ablation))
    if findings.runs:
        yield curves_section(findings.runs)
        yield stall_section(findings.runs)
    if findings.datasets:
        files, ledgers = [], []
        for dataset in findings.datasets:
            files.append(dataset_rejects(dataset))
            ledgers.append((files[-1].title, ledger_sentence(dataset.card, files[-1])))
            for column in annotation_columns(dataset):
                folder = f"sidecars/{column}"
                files.append(column_rejects(dataset, folder))
                ledgers.append((files[-1].title, column_sentence(read_ledger(dataset.storage, folder), files[-1])))
        yield datasets_section(findings.datasets, ledgers)
        yield rejects_section(files)
        yield soundness_section(
            [
                look_for_damage(dataset, wanted=config.verify, most_mib=config.verify_mib)
                for dataset in findings.datasets
            ]
        )
    if findings.timings:
        yield timings_section(findings.timings)
    yield _configs(findings, config)


def _figures(findings: Findings) -> Markup | None:
    """The few numbers that a reader looks for first; None where nothing was counted or scored."""
    figures: list[tuple[str, str]] = []
    if findings.datasets:
        cards = [dataset.card for dataset in findings.datasets]
        figures += [
            (f"{sum(card.records for card in cards):,}", "records"),
            (f"{sum(card.annotations for card in cards):,}", "annotations"),
            (f"{sum(sum(card.rejects.values()) for card in cards):,}", "rejects, each of them named"),
            (size_text(sum(card.bytes for card in cards)), "in shards"),
        ]
    if findings.retrievals:
        best = findings.retrievals[-1]
        for direction, name in (("text_to_image", "text → image"), ("image_to_text", "image → text")):
            if (value := best.metrics.get(f"{direction}_r1")) is not None:
                guess = best.chance.get(f"{direction}_r1")
                figures.append((f"{value:.1f} %", f"R@1 {name}" + (f", chance {guess:.2f} %" if guess else "")))
    figures += [figure for evaluation in findings.task_evaluations if (figure := headline(evaluation)) is not None]
    if findings.timings:
        total = sum(step.seconds for step in findings.timings)
        figures.append((duration_text(total), "for all steps"))
    if not figures:
        return None
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for value, name in figures), class_="figures")


def _configs(findings: Findings, config: ReportConfig) -> Markup | None:
    """Resolved configs and digests, folded away."""
    folded: list[Markup] = []
    for dataset in findings.datasets:
        card = dataset.card
        folded.append(
            _folded(
                f"Dataset {card.name} · {card.split}",
                {"config digest": card.config_digest, "manifest digest": card.manifest_digest},
                card.config,
            )
        )
        concepts = LearnedColumns(dataset, concepts=config.concepts).concepts
        if concepts is not None:
            digests = {"digest": str(concepts.card.get("digest8", ""))}
            folded.append(_folded(f"Concepts of {card.name} · {card.split}", digests, concepts.card))
    folded += [
        _folded(f"Run {run.path.name}", {"config digest": digest(dict(run.config))}, run.config)
        for run in findings.runs
        if run.config
    ]
    folded += [
        _folded(f"Evaluation {found.path.name}", {}, found.facts) for found in findings.evaluations if found.facts
    ]
    if not folded:
        return None
    return tag("section", tag("h2", "Configs and digests"), *folded, id="configs")


def _folded(title: str, digests: Mapping[str, str], config: Mapping[str, Any]) -> Markup:
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    if len(text) > _LONGEST_CONFIG:
        text = text[:_LONGEST_CONFIG] + "\n… the rest is in dataset.json or config.yaml\n"
    named = join(tag("p", f"{name}: ", tag("code", value)) for name, value in digests.items())
    return tag("details", tag("summary", title), named, tag("pre", text, tabindex=0))


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
