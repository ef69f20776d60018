#!/usr/bin/env bash
# Runs reloader, which runs the program, on this machine until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p /tmp/reloader-supervise/settings
echo hello >/tmp/reloader-supervise/settings/greeting
exec reloader run app.yaml
