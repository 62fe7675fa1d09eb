"""Interpreters, uv, and the kept virtual environments of the test suite; noxfile.py uses this."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nox.virtualenv import UV

if TYPE_CHECKING:
    import nox

ROOT = Path(__file__).parents[1]
#: Supported series of Airflow, and the Pythons that their metadata name, the preferred first.
PYTHONS = {
    "2.11": ("3.12", "3.11"),
    "3.0": ("3.11", "3.12"),
    "3.1": ("3.13", "3.12", "3.11"),
    "3.2": ("3.12", "3.11", "3.13", "3.14"),
    "3.3": ("3.13", "3.12", "3.11", "3.14"),
    "3.4": ("3.13", "3.12", "3.11", "3.14"),
    "lowest": ("3.11", "3.12"),
}
#: Airflow has hardly any upper bounds, and older series do not work with today's FastAPI, pydantic
#: and others. So they get what was published before the next series, as in their constraints file.
EXCLUDE_NEWER = {
    "3.0": "2026-01-18T00:00:00Z",  # a day after common-compat 1.12
    "3.1": "2026-04-07T00:00:00Z",
    "3.2": "2026-07-06T00:00:00Z",
}


@functools.cache
def uv_settings() -> dict[str, str]:
    """Return the certificate and the package index that pip is configured with, as uv reads them.

    What the environment already says to uv has priority.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    # pip lists its environment variables before its files, and the first must win.
    pip = dict(reversed(re.findall(r"^[^.\n]+\.(cert|index-url)='(.*)'$", listing, re.MULTILINE)))
    names = {"cert": "SSL_CERT_FILE", "index-url": "UV_DEFAULT_INDEX"}
    return {names[key]: os.environ.get(names[key]) or value for key, value in pip.items()}


def install(session: nox.Session, *packages: str) -> None:
    """Install packages into the environment of a session."""
    session.install(*packages, env=uv_settings())


def run_uv(session: nox.Session, *command: str) -> None:
    """Run uv quietly; if it fails, its output is shown."""
    session.run_install(UV, *command, env=uv_settings(), external=True, silent=True)


def find_python(*versions: str) -> str | None:
    """Return the path of the first of these Pythons that is installed and runs."""
    for version in versions:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
        for program in (*map(str, pyenv), f"python{version}", sys.executable):
            # Run, not only found: pyenv has a command for every version, even if it is disabled.
            question = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
            try:
                answer = subprocess.check_output(
                    [program, "-c", question], text=True, stderr=subprocess.DEVNULL
                )
            except (OSError, subprocess.CalledProcessError):
                continue
            found, _, path = answer.strip().partition(" ")
            if found == version:
                return path
    return None


def pythons_for(airflow: str) -> Sequence[str]:
    """Return the Pythons for a series or a release of Airflow, the preferred first."""
    return PYTHONS.get(".".join(airflow.split(".")[:2]), PYTHONS["3.3"])


def lowest_versions() -> str:
    """Write a constraint ``name==1.2.*`` for each ``name>=1.2`` in pyproject.toml; return its path.

    Without it uv prefers a higher version of one package to an older version of another.
    """
    floors = re.findall(r'"([a-z-]+)>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    file = ROOT / ".nox" / "lowest.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{name}=={version}.*\n" for name, version in floors))
    return str(file)


def test_environment(
    session: nox.Session, name: str, base: str, requirements: Sequence[str], *, peer: bool
) -> tuple[Path, str]:
    """Return a kept virtual environment and the path of its Python.

    It is made anew when pyproject.toml, the requirements or Python have changed, so that it holds
    exactly what users would get.

    :param base: path of the interpreter.
    :param peer: whether to add the package that docs/migrating.md compares with. It works with
        Airflow 2 only, and no other test may import it.
    """
    version = subprocess.check_output([base, "-VV"], text=True)
    folder = ROOT / ".nox" / f"{name}-py{'.'.join(version.split()[1].split('.')[:2])}"
    python = str(folder / "bin" / "python")
    stamp = "\n".join((version, *requirements, (ROOT / "pyproject.toml").read_text()))
    made_for = folder / "made-for.txt"
    if not made_for.exists() or made_for.read_text() != stamp or not Path(python).exists():
        session.log(f"Building {folder.relative_to(ROOT)}, which takes a minute or two")
        run_uv(session, "venv", "--clear", "--python", base, str(folder))
        to = ("--python", python)
        run_uv(session, "pip", "install", *to, "--compile-bytecode", *requirements)
        if peer:
            packages = ("apache-airflow-providers-huawei==1.7.0", "huaweicloudsdkiam")
            target = ("--target", str(folder / "peer"))
            run_uv(session, "pip", "install", *to, "--no-deps", *target, *packages)
        made_for.write_text(stamp)
    return folder, python


def install_wheel(session: nox.Session, wheel: Path, environment: Path, python: str) -> None:
    """Install a wheel, unless the same one is installed: other tests may be using it just now."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    installed = environment / "wheel.txt"
    if installed.exists() and installed.read_text() == digest:
        return
    installed.unlink(missing_ok=True)
    options = ("--python", python, "--no-deps", "--reinstall")
    run_uv(session, "pip", "install", *options, str(wheel))
    installed.write_text(digest)
