# Sourced by quickstart.sh and test.sh: makes the virtual environment .venv and finds or installs the system's
# GL libraries. Safe to run again; does nothing where everything is there. Sets PY, the environment's Python.

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }

# May packages be installed on this system without asking for a password?
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
  else return 1; fi
}

apt_install() {
  command -v apt-get >/dev/null || return 1
  say "setup: installing system packages: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# ldconfig lies in /sbin, which is not on every user's PATH.
has_library() { case "$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null)" in *"$1"*) return 0 ;; *) return 1 ;; esac; }

find_python() {
  for candidate in python3.11 python3.12 python3; do
    command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo "$candidate"; return; }
  done
  return 1
}

setup_gl() {
  local missing=()
  has_library libGL.so.1 || missing+=(libgl1)
  has_library libEGL.so.1 || missing+=(libegl1)
  has_library libOSMesa.so || missing+=(libosmesa6)
  [ ${#missing[@]} = 0 ] && return
  apt_install "${missing[@]}" && return
  say "setup: the GL libraries ${missing[*]} are missing and cannot be installed without root."
  say "setup: policies that see images need them: ask an administrator for \`apt-get install ${missing[*]}\`."
}

setup_python() {
  local python stamp wanted
  stamp=.venv/.installed
  wanted=$(cat requirements.txt pyproject.toml | sha256sum)
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || { apt_install python3.11 python3.11-venv && python=$(find_python); } ||
      { apt_install python3.12 python3.12-venv && python=$(find_python); } ||
      fail "Python 3.11 or 3.12 is needed; none was found and none could be installed"
    "$python" -m venv .venv 2>/dev/null || { rm -rf .venv; apt_install "$(basename "$python")-venv" && "$python" -m venv .venv; } ||
      fail "\`$python -m venv .venv\` failed; on Debian install $(basename "$python")-venv"
  fi
  PY=$PWD/.venv/bin/python
  "$PY" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' ||
    fail ".venv has $("$PY" -V), but 3.11 or 3.12 is needed: remove .venv and run this again"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "setup: installing Python packages into .venv (a few minutes the first time)"
    "$PY" -m pip install --quiet --disable-pip-version-check -r requirements.txt || fail "pip could not install requirements.txt"
    "$PY" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . || fail "pip could not install this project"
    printf '%s\n' "$wanted" > "$stamp"
  fi
  # opencv-python cannot be imported without libGL.so.1; the headless build can, and nothing here opens a window.
  if ! has_library libGL.so.1 && ! "$PY" -c 'import cv2' 2>/dev/null; then
    local version
    version=$("$PY" -m pip show opencv-python | sed -n 's/^Version: //p')
    say "setup: replacing opencv-python by opencv-python-headless, which needs no libGL"
    "$PY" -m pip uninstall --quiet -y opencv-python
    "$PY" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "opencv-python-headless==$version"
  fi
}

setup_gl
setup_python
