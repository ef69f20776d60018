#!/usr/bin/env bash
# Sets one key of the ConfigMap as the kubelet does: all keys in a new directory, then one rename of the link to it.
# Usage: set.sh KEY VALUE
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p "${WORK:-tmp}/site"
cd "${WORK:-tmp}/site"

old=$(readlink ..data || true)
new=$(mktemp -d "..$(date +%Y_%m_%d_%H_%M_%S).XXXXXX")
chmod 755 "$new"
[ -z "$old" ] || cp "$old"/* "$new"
printf %s "$2" >"$new/$1"
ln -sfn "$new" ..data_tmp
mv -T ..data_tmp ..data
ln -sfn "..data/$1" "$1"
[ -z "$old" ] || rm -r "$old"
