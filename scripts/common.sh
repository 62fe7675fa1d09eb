# shellcheck shell=bash
# Sourced by the scripts next to it: finding a Python, and virtual environments that are kept.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# find_python [VERSION...]: print the path of the first of these Pythons that is here and can make
# virtual environments. "any" is any from 3.11 on, and the last resort where no version is named.
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
    fail "No usable Python was found (looked for: $*). Needed is Python 3.11 or later with venv and" \
        "pip; on Debian and Ubuntu: apt install python3 python3-venv."
}

# Asked, not only looked up: pyenv has a command for each version, also for those switched off.
can_make_venvs() {
    "$1" - "$2" 2>/dev/null <<'PYTHON'
import sys, ensurepip, venv
here, wanted = sys.version_info[:2], sys.argv[1]
sys.exit(here < (3, 11) or wanted not in ("any", "%d.%d" % here))
PYTHON
}

# find_chromium: print the path of the browser, which is $CHROMIUM if that is set.
find_chromium() {
    local name
    [[ -z ${CHROMIUM:-} ]] || { say "$CHROMIUM" && return; }
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" && return
    done
    fail "No Chromium was found; on Debian and Ubuntu: apt install chromium."
}

# prepare_venv FOLDER PYTHON WORDS...: make a virtual environment unless FOLDER has one for the same
# Python, pyproject.toml and WORDS already; true if it is new and has to be filled.
prepare_venv() {
    local folder=$1
    [[ ! -f $folder/stamp || $(<"$folder/stamp") != "$(stamp_of "${@:2}")" ]] || return 1
    rm -rf "$folder"
    mkdir -p "$folder"
    "$2" -m venv "$folder" || fail "Cannot make a virtual environment in $folder."
}

# seal_venv FOLDER PYTHON WORDS...: remember that the virtual environment is complete.
seal_venv() { stamp_of "${@:2}" >"$1/stamp"; }

# The place belongs to it: a virtual environment that was moved does not work.
stamp_of() { { "$1" -VV && printf '%s\n' "$root" "$@" && cat "$root/pyproject.toml"; } | cksum; }

# logged FILE COMMAND...: run quietly; show the end of the log if it fails.
logged() {
    local log=$1
    shift
    "$@" >>"$log" 2>&1 && return
    tail -n 30 "$log" >&2
    fail "Failed: $* (all of it is in $log)"
}
