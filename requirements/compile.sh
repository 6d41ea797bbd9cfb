#!/bin/sh
# Compile the hash-locked requirement files from the pyproject files. Run by `make lock`; extra arguments go to uv (--upgrade).
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
lock() {
    output=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@" --output-file "requirements/$output"
    # The workspace's own distributions are installed from the checkout, never from a registry.
    sed -i '/^-e /d; /^\.\/\(contracts\|client\|services\)/d; /^file:/d' "requirements/$output"
}
lock up.txt pyproject.toml --group up
lock dev.txt pyproject.toml --group dev --constraints requirements/up.txt
for service in tables scheduler executor web; do
    lock "$service.txt" "services/$service/pyproject.toml" --constraints requirements/up.txt
done
lock client.txt client/pyproject.toml --constraints requirements/up.txt
echo "uv==$("$uv" --version | cut -d' ' -f2)" | "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate - --output-file requirements/uv.txt
