# Shared by the scripts; sourced from the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Two compilers at once need up to 1.5 GB each.
jobs() {
  local kib by_memory cores
  kib=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
  by_memory=$((kib / 1500000))
  cores=$(nproc)
  ((by_memory < 1)) && by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}

# Names of script/packages.txt for the given steps.
packages() {
  local steps=" $* " step name rest
  while read -r step name rest; do
    [[ $step != "#"* && -n $step && $steps == *" $step "* ]] && echo "$name"
  done <script/packages.txt
  return 0
}

# A Python that can make environments: Debian's own lacks ensurepip until python3-venv is there, another one may come first in PATH.
venv_python() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo "$python"; return; }
  done
  fail "no Python 3.10 or newer with venv and ensurepip: install python3-venv"
}

# make_venv FILE...: .venv with what the requirements files list; does nothing when they have not changed.
make_venv() {
  local stamp=.venv/hadal.sha256 want
  [[ -x .venv/bin/python ]] && .venv/bin/python -c '' 2>/dev/null || { rm -rf .venv; say "making .venv"; "$(venv_python)" -m venv .venv; }
  (($# == 0)) && return
  want=$(cat "$@" | sha256sum)
  [[ -f $stamp && $(<"$stamp") == "$want" ]] && return
  say "installing $* into .venv"
  local arguments=() file
  for file; do arguments+=(-r "$file"); done
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "${arguments[@]}" >&2
  echo "$want" >"$stamp"
}

# Whether .venv has what the Python module is built with.
can_build_module() {
  .venv/bin/python -c 'import nanobind, os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

# Where .venv's torch describes itself to CMake; nothing where it has none.
torch_cmake() {
  local folder
  for folder in .venv/lib/python3*/site-packages/torch/share/cmake/Torch; do
    [[ -f $folder/TorchConfig.cmake ]] && echo "$PWD/$folder"
  done
  return 0
}

cache_folder() { echo "${HADAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hadal}"; }
