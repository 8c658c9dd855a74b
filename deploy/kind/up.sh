#!/usr/bin/env bash
# Creates a kind cluster with topolet on it, runs an example and prints the CPUs
# that it got. Run again after a change, it keeps the cluster and updates topolet.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/../.."
source deploy/image/engine.sh
find_engine
for program in go kubectl; do
	command -v "$program" >/dev/null || { echo "$program is not installed; it is needed to set up the cluster" >&2; exit 1; }
done

cluster=${KIND_CLUSTER:-topolet}
declare -A images=([topolet]=docker.io/topolet/topolet:dev [workload]=docker.io/topolet/workload:test)
output=$PWD/_output/kind
export KUBECONFIG=$output/kubeconfig
export KIND_EXPERIMENTAL_PROVIDER=$ENGINE
mkdir -p "$output"

tool() { go tool -modfile="test/tools/$1/go.mod" "$@"; }

if tool kind get clusters | grep -qxF "$cluster"; then
	echo "The cluster $cluster exists."
	tool kind export kubeconfig --name "$cluster"
else
	tool kind create cluster --name "$cluster" --config deploy/kind/cluster.yaml --wait 3m
fi

for target in "${!images[@]}"; do
	deploy/image/build.sh "$target" "${images[$target]}"
	"$ENGINE" save --output "$output/$target.tar.new" "${images[$target]}"
	mv "$output/$target.tar.new" "$output/$target.tar"
	tool kind load image-archive "$output/$target.tar" --name "$cluster"
done

# The tag stays the same, so the image's id makes new pods of a new build.
id=$("$ENGINE" image inspect --format '{{.Id}}' "${images[topolet]}")
tool helm upgrade --install topolet deploy/helm/topolet --namespace topolet-system --create-namespace \
	--set image.repository="${images[topolet]%:*}" --set image.tag="${images[topolet]##*:}" --set image.pullPolicy=Never \
	--set-string "podAnnotations.topolet\.dev/image=$id"
if ! kubectl -n topolet-system rollout status daemonset/topolet --timeout=2m; then
	kubectl -n topolet-system get pods --output wide
	kubectl -n topolet-system logs daemonset/topolet --all-pods --prefix --tail=20 || true
	exit 1
fi

kubectl delete --ignore-not-found --timeout=1m -f deploy/examples/one-cpu.yaml
kubectl apply -f deploy/examples/one-cpu.yaml
if ! kubectl wait --for=condition=Ready pod/one-cpu --timeout=1m; then
	kubectl describe pod/one-cpu
	exit 1
fi
echo "The pod one-cpu says where it may run:"
kubectl logs one-cpu
echo "To look further: export KUBECONFIG=$KUBECONFIG"
