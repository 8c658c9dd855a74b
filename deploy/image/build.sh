#!/usr/bin/env bash
# Builds one target of the Dockerfile: build.sh topolet|workload IMAGE
set -euo pipefail
target=$1 image=$2
cd "${BASH_SOURCE[0]%/*}/../.."
source deploy/image/engine.sh
find_engine
version=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)
"$ENGINE" build --file deploy/image/Dockerfile --target "$target" --build-arg "VERSION=$version" --tag "$image" .
