#!/usr/bin/env bash
# Installs mbrl-lib 0.2.0 into its own environment, .venv-mbrl at the repository's root (git-ignored). Needs Python 3.11.
#
#     benchmarks/peers/install.sh [PYTHON]
#
# mbrl 0.2.0 names versions of gym and mujoco that no longer install, so its dependencies are listed here and it comes
# without them. Timings are on the CPU: a CPU build of torch is enough, and is what the package index offers where it has
# one. It is safe to run again: a finished installation is left as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3.11}
venv=.venv-mbrl
if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import mbrl.planning, mbrl.algorithms.pets' 2>/dev/null; then
    echo "$venv is ready"
    exit 0
fi
"$python" -m venv --clear "$venv"
"$venv/bin/pip" install -q torch==2.13.0
"$venv/bin/pip" install -q 'numpy<2' gymnasium==0.26.3 hydra-core==1.3.2 omegaconf termcolor tensorboard imageio \
    matplotlib tqdm pygame 'mujoco<3.3'
"$venv/bin/pip" install -q --no-deps mbrl==0.2.0
"$venv/bin/python" -c 'import mbrl.planning, mbrl.algorithms.pets'
echo "$venv is ready"
