#!/bin/sh
# Has systemd verify the units of deploy/systemd, as if they were installed, in a folder that stands for the machine.
set -eu
cd "$(dirname "$0")/.."
command -v systemd-analyze >/dev/null || { echo "needs systemd-analyze, of the package systemd"; exit 2; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/etc/systemd" "$root/usr/lib/systemd" "$root/opt/bidden/.venv/bin"
cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
cp -r deploy/systemd "$root/etc/systemd/system"
install /bin/true "$root/opt/bidden/.venv/bin/bidden"
units="bidden-migrate.service bidden-sync.service bidden-dispatcher.service bidden-site.service bidden-worker@01.service"
# shellcheck disable=SC2086 # words
found=$(systemd-analyze verify --root="$root" --man=no bidden.target $units 2>&1) || true
# What it does not understand it only prints.
[ -z "$found" ] || { echo "$found"; exit 1; }
for unit in $units; do
  # 0 to 100: 15 is shown as 1.5. A service without any hardening has 9.6.
  systemd-analyze security --root="$root" --offline=true --threshold=15 "$unit" >/dev/null || {
    echo "$unit: systemd-analyze security finds it more exposed than 1.5"
    exit 1
  }
done
echo "deploy/systemd: verified, no unit is more exposed than 1.5"
