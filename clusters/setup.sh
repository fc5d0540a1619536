#!/usr/bin/env bash
# What a node needs before `ray start`: Python and packages as pinned, settings, scratch space. Repeating it changes
# nothing. Usage: setup.sh --python 3.11 --ray 2.60.0 --retable 0.1.0 [--extra aws,postgres]
set -euo pipefail

code="$HOME/retable" venv="$HOME/retable-venv" python="" ray="" retable="" extra=""
while [ $# -gt 0 ]; do
  case "$1" in
    --python) python="$2" ;;
    --ray) ray="$2" ;;
    --retable) retable="$2" ;;
    --extra) extra="$2" ;;
    *) echo "setup: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done

fits() {  # says what does not
  [ -x "$venv/bin/python" ] || { echo "there is no $venv yet"; return 1; }
  "$venv/bin/python" - "$python" "$ray" "$retable" "$extra" <<'PY'
import importlib.util, sys
from importlib.metadata import PackageNotFoundError, version

def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"

python, ray, retable, extra = sys.argv[1:]
seen = {"python": ("%d.%d" % sys.version_info[:2], python), "ray": (found("ray"), ray), "retable": (found("retable"), retable)}
wrong = [f"{name} is {is_}, not {asked}" for name, (is_, asked) in seen.items() if is_ != asked]
modules = {"aws": "boto3", "gcp": "googleapiclient", "postgres": "psycopg2"}
asked = [modules.get(name, name) for name in extra.split(",") if name]
wrong += [f"{module} is missing" for module in asked if importlib.util.find_spec(module) is None]
print("; ".join(wrong))
sys.exit(bool(wrong))
PY
}

install() {
  if command -v "python$python" >/dev/null && "python$python" -c "import ensurepip" 2>/dev/null; then
    "python$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$code/constraints.txt" -e "$code${extra:+[$extra]}"
  else  # the distribution has another Python: uv brings the one asked for, and verifies it
    python3 -m venv "$HOME/.uv" || { sudo apt-get update -qq && sudo apt-get install -qq -y python3-venv && python3 -m venv --clear "$HOME/.uv"; }
    "$HOME/.uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==0.13.8"
    "$HOME/.uv/bin/uv" venv --quiet --clear --python "$python" "$venv"
    "$HOME/.uv/bin/uv" pip install --quiet --python "$venv/bin/python" -c "$code/constraints.txt" -e "$code${extra:+[$extra]}"
  fi
}

scratch() {  # the node's own NVMe disk where it has one, else the root disk
  [ -e "$HOME/scratch" ] && return
  local disk
  if mountpoint -q /opt/dlami/nvme; then  # AWS deep learning images mount it themselves
    sudo chown "$(id -u)" /opt/dlami/nvme && ln -s /opt/dlami/nvme "$HOME/scratch"
    return
  fi
  disk=$(ls /dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_* /dev/disk/by-id/google-local-nvme-ssd-* 2>/dev/null | head -n 1 || true)
  if [ -n "$disk" ] && ! grep -q "^$(readlink -f "$disk") " /proc/mounts; then
    sudo mkfs.ext4 -q -F "$disk" && sudo mkdir -p /scratch && sudo mount "$disk" /scratch && sudo chown "$(id -u)" /scratch
    ln -s /scratch "$HOME/scratch"
  else
    mkdir "$HOME/scratch"
  fi
}

if ! why=$(fits); then
  echo "setup: installing, because $why"
  install
  why=$(fits) || { echo "setup: after installing, $why: the cluster file and constraints.txt disagree" >&2; exit 1; }
fi

line=". ~/retable/clusters/env.sh"  # first: the images' ~/.bashrc returns early when no one types
touch "$HOME/.bashrc"
[ "$(head -n 1 "$HOME/.bashrc")" = "$line" ] || { echo "$line" | cat - "$HOME/.bashrc" >"$HOME/.bashrc.new" && mv "$HOME/.bashrc.new" "$HOME/.bashrc"; }

[ -s "$HOME/.ray/auth_token" ] || { echo "setup: there is no ~/.ray/auth_token: see file_mounts in the cluster file" >&2; exit 1; }
chmod 600 "$HOME/.ray/auth_token"
scratch
mkdir -p "$HOME/scratch/spill" "$HOME/scratch/cache"
