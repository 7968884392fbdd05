#!/usr/bin/env bash
# Gradescope runs this once, when it builds the autograder's image, as root on Ubuntu.
set -euo pipefail
here=${AUTOGRADER:-/autograder}/source

python=
for each in python3.13 python3.12 python3.11; do
  if command -v "$each" > /dev/null; then python=$each; break; fi
done
apt-get update -qq
apt-get install -y -qq --no-install-recommends iproute2 nftables
if [ -z "$python" ]; then
  apt-get install -y -qq --no-install-recommends python3.12 python3.12-venv || apt-get install -y -qq --no-install-recommends python3.11 python3.11-venv
  python=$(command -v python3.12 || command -v python3.11)
else
  apt-get install -y -qq --no-install-recommends "$python-venv" || true   # a Python of its own brings it
fi
"$python" -m venv /opt/socklab
# A wheel in the zip comes first: for a version of yours, or where the index cannot be reached.
wheels=("$here"/socklab-*.whl)
if [ -e "${wheels[0]}" ]; then /opt/socklab/bin/pip install --quiet "${wheels[0]}"; else /opt/socklab/bin/pip install --quiet 'socklab>=@version@'; fi
