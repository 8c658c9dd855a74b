#!/usr/bin/env bash
# Deletes the kind cluster of up.sh. No error if there is none.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/../.."
source deploy/image/engine.sh
find_engine
export KIND_EXPERIMENTAL_PROVIDER=$ENGINE
go tool -modfile=test/tools/kind/go.mod kind delete cluster --name "${KIND_CLUSTER:-topolet}" --kubeconfig "$PWD/_output/kind/kubeconfig"
