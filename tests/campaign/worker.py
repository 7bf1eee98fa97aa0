"""Runs cases in a process that may crash: a line with a kind and a seed in, a JSON line out."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import cases  # noqa: F401 - registers the kinds
import torch
from kinds import KINDS, ROOT, BrokenPromiseError, Case

MEMORY = 14 * 2**30
"""Bytes of addresses: a size that a file states must not take all of the machine's memory."""


def main() -> None:
    """Run cases until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    log = Path(sys.argv[1]).open("a", encoding="utf-8")  # noqa: SIM115 - for the whole process
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    faulthandler.enable(log)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        kind, seed = line.split()
        answers.write(json.dumps(run(kind, int(seed))) + "\n")
        answers.flush()


def run(kind: str, seed: int) -> dict[str, object]:
    """One case, and what became of it."""
    folder = Path(tempfile.mkdtemp(prefix=f"campaign-{kind}-"))
    case = Case(kind=kind, seed=seed, folder=folder)
    answer: dict[str, object] = {}
    before = Path.cwd()
    started = time.monotonic()
    try:
        os.chdir(folder)
        KINDS[kind](case)
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_product(f.filename)]
        deepest = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(deepest.filename).name}:{deepest.name}"
        answer["fault"] = f"{type(error).__name__} in {where}: {' '.join(str(error).split())[:300]}"
        answer["signature"] = f"{kind}: {type(error).__name__} in {where}"
        if isinstance(error, BrokenPromiseError):
            answer["signature"] = f"{kind}: {re.sub('[0-9]+', 'N', str(error)[:60])}"
        lines = [*traceback.format_exception(error), *map(str, case.notes)]
        answer["trace"] = "\n".join(lines)
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - started
    return answer | {
        "calls": case.calls, "kills": case.kills, "skipped": case.skipped, "seconds": seconds
    }  # fmt: skip


def _is_product(name: str) -> bool:
    return name.startswith((f"{ROOT}/cv_superpoint", f"{ROOT}/train"))


if __name__ == "__main__":
    main()
