"""The errors a person sees. Each message is one sentence: what was wrong, where, and what to do."""

from __future__ import annotations


class OstrakaError(Exception):
    """Base of every error whose message is meant for the person who runs the command; exit code 1."""


class ConfigError(OstrakaError):
    """The command line, a preset or a config is wrong: nothing was started; exit code 2."""


class InputError(OstrakaError):
    """A raw annotation file, folder or table that the run needs is missing or malformed as a whole; exit code 2."""


class DatasetError(OstrakaError):
    """A dataset on disk is missing, damaged, or was made by another config than the one at hand."""


class StoreError(DatasetError):
    """A store refuses, or does not answer however often it is asked. No record is damaged by that: the run stops."""


class DamagedRecordError(DatasetError):
    """One record cannot be read: its checksum, header or JSON is wrong. The stream counts these against a budget."""


class BudgetError(OstrakaError):
    """More raw items were rejected, or more records were damaged, than the run allows."""


class MissingLibraryError(OstrakaError):
    """An optional library is not installed; the message names the extra that brings it."""
