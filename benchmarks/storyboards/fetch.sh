#!/bin/sh
# What build_bank.py and render.py read: the materials of benchmarks/mini, and WordNet:  sh fetch.sh MATERIALS
set -eu
sh "$(dirname "$0")/../mini/fetch.sh" "$1"
cd "$1"
apt-get download wordnet-base
dpkg -x wordnet-base_*.deb wordnet
