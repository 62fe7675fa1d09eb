# shellcheck shell=bash
# Sourced by the scripts of this project: finds a Python, installs nox and uv, and runs nox.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# find_python [VERSION...]: print the path of the first of these Pythons that is installed and can
# make virtual environments. "any" is any version from 3.11 on. Default: the newest supported one.
find_python() {
    local version name
    (($#)) || set -- 3.13 3.12 3.11 any
    for version in "$@"; do
        for name in "${HOME:-}/.pyenv/versions/$version".*/bin/python3 "python$version" python3; do
            can_make_venvs "$name" "$version" || continue
            "$name" -c 'import sys; print(sys.executable)'
            return
        done
    done
    fail "No usable Python was found (looked for: $*). Python 3.11 or later with venv and pip is" \
        "required; on Debian and Ubuntu: apt install python3 python3-venv."
}

# Run, not only found: pyenv has a command for every version, even if the version is disabled.
can_make_venvs() {
    "$1" - "$2" 2>/dev/null <<'PYTHON'
import sys, ensurepip, venv
here, wanted = sys.version_info[:2], sys.argv[1]
sys.exit(here < (3, 11) or wanted not in ("any", "%d.%d" % here))
PYTHON
}

# run_nox ARGUMENTS...: run nox from an environment of its own, which is made at the first use.
run_nox() {
    local python launcher=$root/.nox/launcher
    if ! "$launcher/bin/python" -c 'import nox, uv' 2>/dev/null; then
        python=$(find_python) || exit
        rm -rf "$launcher"
        if ! "$python" -m venv "$launcher" ||
            ! "$launcher/bin/python" -m pip -qq --disable-pip-version-check install nox uv; then
            fail "Cannot install nox and uv in $launcher."
        fi
    fi
    "$launcher/bin/python" -m nox --noxfile "$root/noxfile.py" "$@"
}
