"""Build wheel and sdist, install each into a clean environment, run the README's lines outside.

python tests/package.py FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> None:
    subprocess.run([str(each) for each in command], check=True, cwd=cwd)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("cv_superpoint-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert lines, "the README has no Python block"
    for package in sorted(folder.glob("cv_superpoint-*")):
        place = folder / ("from-wheel" if package.suffix == ".whl" else "from-sdist")
        venv.create(place, with_pip=True, clear=True)
        python = place / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            constraints,
            f"{package}[examples]",
            cwd=place,
        )
        (place / "readme.py").write_text(lines[1], encoding="utf-8")
        run(python, "-W", "error", "readme.py", cwd=place)
        run(place / "bin" / "cv-superpoint", "doctor", cwd=place)
        print(f"{package.name}: installed and run in {place}", flush=True)


if __name__ == "__main__":
    main()
