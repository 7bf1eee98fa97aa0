"""What every stage of a run was trained with, kept in its folder: other settings never mix in.

A stage that was begun goes on only with the settings that decide its outcome, of which the length
may grow. What says where and how fast it runs may change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cv_superpoint.files.names import shown
from cv_superpoint.files.record import (
    RecordError,
    as_stored,
    differences,
    read_record,
    write_record,
)
from train.data.photographs import Photographs
from train.learning import checkpoint

log = logging.getLogger(__name__)

FILE = "settings.json"
LENGTH = ("minutes", "steps")
ELSEWHERE = (*LENGTH, "workers", "checkpoint_minutes", "validate_minutes", "report_steps")
"""Fields of a loop that may change while a stage is under way."""


@dataclass(kw_only=True)
class RunSettings:
    """The record of a run.

    Attributes:
        path: The file.
        stages: Settings of each stage that was begun, by its name.
        photographs: SHA-256 of each photograph by name, of the stages that look at photographs.
        held_out: Names of those that are kept out of training.
    """

    path: Path
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    photographs: dict[str, str] = field(default_factory=dict)
    held_out: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, run_dir: Path) -> RunSettings:
        """The record of a run folder, empty for a new one.

        Raises:
            ValueError: If it is damaged.
        """
        path = run_dir / FILE
        try:
            return cls(path=path, **(read_record(path) or {}))
        except (RecordError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); restore it, or name another --run-dir"
            ) from error

    def write(self) -> None:
        """Write the file."""
        record = {
            "stages": self.stages,
            "photographs": self.photographs,
            "held_out": self.held_out,
        }
        if not self.path.exists() or read_record(self.path) != record:
            write_record(self.path, record)

    def check(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Check that a stage that was begun goes on with what it was begun with.

        Args:
            stage: Name of its checkpoint.
            settings: Settings of this call.

        Raises:
            ValueError: If something else differs than what may; names it.
        """
        saved = self._saved(stage)
        if not saved.exists() or stage not in self.stages:
            return
        before, now = self.stages[stage], as_stored(settings)
        changed = list(differences(_lasting(before), _lasting(now)))
        if _length(before) != _length(now) and _is_over(checkpoint.load(saved), now):
            # Nothing would be trained, and not for the time that is asked for.
            changed += differences(_length(before), _length(now), "loop")
        if changed:
            raise self._refusal(stage, changed)

    def check_photographs(self, found: Photographs, stages: Sequence[str]) -> None:
        """Check that a run goes on with the photographs that it was begun with.

        Some may be lost or damaged since, if there is a stage that is not finished.

        Args:
            found: Photographs in the folder.
            stages: Names of those that look at photographs, in their order.

        Raises:
            ValueError: If they are others; names some.
        """
        begun = [stage for stage in stages if self._saved(stage).exists()]
        if not begun or not self.photographs or self.photographs == found.contents:
            return
        changed = list(_changes(self.photographs, found.contents))
        is_less = all(self.photographs.get(name) == sha for name, sha in found.contents.items())
        is_finished = begun == list(stages) and checkpoint.load(self._saved(begun[-1]))["finished"]
        if is_finished or not is_less:
            raise self._refusal(begun[-1], changed, "--images")
        log.warning("%s; the run goes on without those that are missing", "; ".join(changed))

    def begin(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Record what a stage is trained with from now on; a finished one keeps what it was."""
        saved = self._saved(stage)
        if saved.exists():
            if stage in self.stages and _is_over(checkpoint.load(saved), settings):
                return
            if stage not in self.stages:
                log.warning(
                    "%s does not say what it was trained with; it is taken to be this", saved
                )
        self.stages[stage] = as_stored(settings)

    def recipe(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with which the stages were trained.

        Args:
            config: Config of this call, for what is not recorded.
        """
        recipe = dict(config)
        for name, settings in self.stages.items():
            if not self._saved(name).exists():
                continue
            kind = next(key for key in ("magicpoint", "joint", "refine") if key in settings)
            recipe |= {"seed": settings["seed"], "network": settings["network"]}
            recipe[kind] = {**settings[kind], "loop": settings["loop"]}
            if "adapt" in settings:
                recipe["adapt"] = {**recipe["adapt"], **settings["adapt"]}
        return recipe

    def _saved(self, stage: str) -> Path:
        return self.path.with_name(f"{stage}.pt")

    def _refusal(self, stage: str, changed: list[str], what: str = "settings") -> ValueError:
        return ValueError(
            f"{self.path.parent} holds the stage {stage}, trained with other {what} "
            f"({'; '.join(changed)}): give the same, or another --run-dir"
        )


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change."""
    loop = {key: value for key, value in settings["loop"].items() if key not in ELSEWHERE}
    return {**settings, "loop": loop}


def _length(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings["loop"].get(key) for key in LENGTH}


def _is_over(state: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is at the end of a stage of this length."""
    minutes, steps = (settings["loop"][key] for key in LENGTH)
    return bool(state["elapsed"] >= 60 * minutes if minutes else state["step"] >= steps)


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """The difference between two sets of photographs in words."""
    kinds = {
        "missing": [name for name in before if name not in now],
        "added": [name for name in now if name not in before],
        "replaced": [name for name in now if before.get(name, now[name]) != now[name]],
    }
    yield f"there were {len(before)} photographs, now {len(now)}"
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"{kind}: {', '.join(map(shown, names[:3]))}{more}"
