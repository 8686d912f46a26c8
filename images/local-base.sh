#!/bin/sh
# Makes a base image of Debian's packages alone (python3 and its venv), where no registry can be
# reached: needs mmdebstrap and docker, podman or buildah, and root.
#
#   sh images/local-base.sh buildah localhost/hdgan-base:bookworm
set -eu
engine=$1
name=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' bookworm "$folder/root.tar"
printf 'FROM scratch\nADD root.tar /\n' > "$folder/Dockerfile"
"$engine" build -t "$name" "$folder"
