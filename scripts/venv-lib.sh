# For scripts that need Python packages; to be read by them with `.`.
# shellcheck shell=sh

# make_venv FOLDER: a virtual environment with pip in FOLDER, unless it is there, of ${PYTHON:-python3}. Where none can be made it
# fails, says so on stdout, and leaves no FOLDER behind that was not there.
make_venv() {
    ! "$1/bin/python" -m pip --version >/dev/null 2>&1 || return 0
    there=
    [ ! -e "$1" ] || there=1
    if "${PYTHON:-python3}" -m venv "$1" >&2; then
        return 0
    fi
    [ -n "$there" ] || rm -rf "$1"
    echo "no virtual environment can be made in $1 (on Debian and Ubuntu that needs the package python3-venv)"
    return 1
}
