#!/usr/bin/env bash
# Makes one site's key, at that site. Usage: deploy/make_node_key.sh FOLDER NAME
# NAME.pub goes to the coordinator, who registers it; NAME never leaves the site.
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: $0 FOLDER NAME" >&2
  exit 2
fi
umask 077
mkdir -p "$1"
ssh-keygen -q -t ecdsa -b 384 -N "" -C "$2" -f "$1/$2"
echo "send $1/$2.pub to the coordinator; keep $1/$2"
