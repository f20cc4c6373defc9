#!/usr/bin/env bash
# What stands today, on this machine, and nothing left behind: a container with its plan, a registry, a control plane.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo 'make demo needs root: it makes namespaces and cgroups' >&2; exit 1; }
tools/setup.sh base demo
work=$(mktemp -d /tmp/estiba-demo.XXXXXX)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
started=$(date +%s%N)
elapsed() { echo "$(( ($(date +%s%N) - started) / 1000000 )) ms"; }
step() { printf '\n== %s (%s)\n' "$1" "$(elapsed)"; }
wait_for() { for _ in $(seq 100); do [ -e "$1" ] && return; sleep 0.1; done; echo "$1 did not appear" >&2; exit 1; }

step '1/4  what this machine can do: estiba doctor --problems'
bin/estiba doctor --problems

step '2/4  a container, and the plan behind it: estiba-oci'
mkdir -p "$work/c/rootfs/bin"
cp /bin/busybox "$work/c/rootfs/bin/"
for applet in sh id hostname ps cat grep; do ln -s busybox "$work/c/rootfs/bin/$applet"; done
bin/estiba-oci spec --bundle "$work/c"
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sh", "-c", "id; hostname; ps"/' "$work/c/config.json"
bin/estiba-oci --root "$work/oci" --plan run --bundle "$work/c" demo > "$work/plan"
sed -n 1,12p "$work/plan"
echo "   … $(grep -c . "$work/plan") lines in all; now the container itself:"
bin/estiba-oci --root "$work/oci" run --bundle "$work/c" demo

step '3/4  a registry: an image pushed by skopeo, read back by digest'
bin/estiba registry serve --data-root "$work/registry" --listen 127.0.0.1:5099 --open > "$work/registry.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do curl -sf http://127.0.0.1:5099/v2/ > /dev/null && break; sleep 0.1; done
(cd "$work" && umoci init --layout image && umoci new --image image:1 && umoci unpack --image image:1 bundle > /dev/null &&
  cp -r c/rootfs/. bundle/rootfs/ && umoci repack --image image:1 bundle > /dev/null)
skopeo copy -q --dest-tls-verify=false "oci:$work/image:1" docker://127.0.0.1:5099/demo/busybox:1
skopeo inspect --tls-verify=false --format '{{.Name}} {{.Digest}} {{len .Layers}} layer(s)' docker://127.0.0.1:5099/demo/busybox:1

step '4/4  a control plane, under kubectl'
bin/estiba daemon --only kube --kube 127.0.0.1:0 --data-root "$work/data" --run-root "$work/run" > "$work/daemon.log" 2>&1 &
pids+=($!)
wait_for "$work/run/endpoints.json"
k() { "$kubectl" --kubeconfig "$work/run/kubeconfig" "$@"; }
kubectl=$(command -v kubectl || true)
if [ -z "$kubectl" ]; then
  mkdir -p .cache/kubectl
  [ -e .cache/kubectl/usr/bin/kubectl ] || (cd .cache/kubectl && apt-get download -qq kubernetes-client && dpkg -x kubernetes-client_*.deb . && rm -f ./*.deb)
  kubectl=$PWD/.cache/kubectl/usr/bin/kubectl
fi
k create deployment web --image=demo/busybox:1 --replicas=3
sleep 1
k get deployments,replicasets,pods
echo '   the pods wait: no node has joined. The scheduler says so:'
k get events --field-selector reason=FailedScheduling -o custom-columns=OBJECT:.involvedObject.name,WHY:.message | sed -n 1,3p

step 'done; everything it made is removed'
