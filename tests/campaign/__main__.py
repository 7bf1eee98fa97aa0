"""A campaign of random calls, damaged files and faults of the machine, for as long as it is given.

``make campaign MINUTES=60``, or ``python tests/campaign --minutes 60 --only images --seed 7``. One
case after the other runs in one process, which is started again where it crashed. A case follows
from its kind and its seed, which the report names for each fault found:
``python tests/campaign --only KIND --seed SEED --cases 1`` repeats it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import cases  # noqa: F401 - registers the kinds
from kinds import KINDS, ROOT

HERE = Path(__file__).parent
LONGEST = 240.0
"""Seconds that a case may take; one that takes longer hangs."""


class Worker:
    """The process that runs the cases."""

    def __init__(self, log: Path, folder: Path) -> None:
        self.log, self.folder = log, folder
        self.process: subprocess.Popen[str] | None = None

    def run(self, kind: str, seed: int) -> dict[str, Any]:
        """One case; its crash or its hanging is a fault, too."""
        if self.process is None or self.process.poll() is not None:
            self.process = self._start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        started = self.log.stat().st_size
        self.process.stdin.write(f"{kind} {seed}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], LONGEST)
        line = self.process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        if ready:
            code = self.process.wait()
            what = signal.Signals(-code).name if code < 0 else f"exit {code}"
        else:
            what = f"more than {LONGEST:.0f} s"
        self.stop()
        with self.log.open("rb") as file:
            file.seek(started)
            said = file.read().decode(errors="replace")
        text = f"the process ends: {what}"
        fault = {"fault": text, "signature": f"{kind}: {text}", "trace": said[-6000:]}
        return {"calls": 1, "kills": 0, "skipped": "", "seconds": 0.0, **fault}

    def stop(self) -> None:
        """End the process, and what it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
                place = line.split()[1]
                if place.startswith(str(self.folder)):
                    subprocess.run(["umount", "-l", place], check=False)
            shutil.rmtree(self.folder, ignore_errors=True)
        self.process = None

    def _start(self) -> subprocess.Popen[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(HERE / "worker.py"), str(self.log)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)},
            start_new_session=True,
        )


class Report:
    """Counts by kind and faults by where they arose, added to those of earlier runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.seconds: float = found.get("seconds", 0.0)
        self.runs: list[dict[str, Any]] = found.get("runs", [])
        self.kinds = {kind: Counter(counts) for kind, counts in found.get("kinds", {}).items()}
        self.faults: dict[str, dict[str, Any]] = found.get("faults", {})
        self.skipped: dict[str, str] = found.get("skipped", {})

    def add(self, kind: str, seed: int, answer: dict[str, Any]) -> None:
        """The answer to a case."""
        counts = self.kinds.setdefault(kind, Counter())
        counts.update(cases=1, calls=answer["calls"], kills=answer["kills"])
        counts["seconds"] += answer["seconds"]
        if answer["skipped"]:
            self.skipped[kind] = answer["skipped"]
        if "fault" in answer:
            counts["faults"] += 1
            entry = self.faults.setdefault(
                answer["signature"],
                {
                    "count": 0,
                    "fault": answer["fault"],
                    "repeat": f"--only {kind} --seed {seed} --cases 1",
                },
            )
            entry["count"] += 1
            if entry["count"] <= 3:
                with (self.path.parent / "faults.txt").open("a", encoding="utf-8") as file:
                    file.write(f"==== {kind} {seed}: {answer['fault']}\n{answer['trace']}\n")

    def write(self) -> None:
        """Write the results in one step."""
        record = {
            "seconds": round(self.seconds),
            "runs": self.runs,
            "skipped": self.skipped,
            "kinds": self.kinds,
            "faults": self.faults,
        }
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(self.path)

    def print(self) -> None:
        """A table for people."""
        columns = ("cases", "calls", "kills", "faults")
        print(f"{'kind':24}" + "".join(f"{name:>10}" for name in (*columns, "seconds")))
        for kind, counts in sorted(self.kinds.items()):
            print(
                f"{kind:24}"
                + "".join(f"{counts[name]:10}" for name in columns)
                + f"{counts['seconds']:10.0f}"
            )
        total: Counter[str] = sum(self.kinds.values(), Counter())
        print(
            f"{'all':24}"
            + "".join(f"{total[name]:10}" for name in columns)
            + f"{self.seconds:10.0f}"
        )
        for kind, why in self.skipped.items():
            print(f"skipped {kind}: {why}")
        for signature, entry in self.faults.items():
            print(f"{entry['count']:4} x {signature}")
            print(f"       {entry['fault']}\n       {entry['repeat']}")


def main() -> int:
    """Run it; returns 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cases", type=int, help="stop after so many")
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), help="kinds; default: all")
    parser.add_argument("--without", nargs="*", choices=sorted(KINDS), default=[])
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6 * 1000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "campaign")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "log.txt"
    log.touch()
    report, worker = (
        Report(options.out / "report.json"),
        Worker(log, options.out.resolve() / "work"),
    )
    names = [name for name in options.only or KINDS if name not in options.without]
    started, before = time.monotonic(), report.seconds
    report.runs.append({"seed": options.seed, "minutes": options.minutes, "kinds": names})
    try:
        for number, kind in enumerate(itertools.cycle(names)):
            if time.monotonic() - started > 60 * options.minutes or number == options.cases:
                break
            answer = worker.run(kind, options.seed + number)
            report.add(kind, options.seed + number, answer)
            report.seconds = before + time.monotonic() - started
            report.write()
            if "fault" in answer:
                print(f"{kind} {options.seed + number}: {answer['fault']}", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        worker.stop()
    report.print()
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
