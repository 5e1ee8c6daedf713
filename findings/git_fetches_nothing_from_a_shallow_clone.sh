#!/usr/bin/env bash
# `git fetch` of a refspec from a shallow clone into a repository without commits ends with status 0 and fetches nothing: each ref
# is "rejected ... because shallow roots are not allowed to be updated", on stderr only. With --update-shallow the refs arrive.
# A mirror of a CI checkout (which is shallow by default) is thus empty, and nobody is told.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_CONFIG_GLOBAL=/dev/null
git --version
git init -q -b main full
for number in 1 2 3; do git -C full commit -q --allow-empty -m "$number"; done
git clone -q --depth 1 "file://$folder/full" shallow
for option in "" --update-shallow; do
    git init -q "mirror$option"
    status=0
    git -C "mirror$option" fetch -q $option ../shallow '+refs/heads/*:refs/mirror/*' 2> said || status=$?
    refs=$(git -C "mirror$option" for-each-ref | wc -l)
    echo "fetch ${option:-without option}: status $status, $refs refs; $(head -c 90 said)"
    echo "$status $refs" >> seen
done
[ "$(cat seen)" = "$(printf '0 0\n0 1')" ] || { echo changed; exit 1; }
