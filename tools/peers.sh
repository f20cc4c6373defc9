#!/usr/bin/env bash
# Checkouts of the peers' suites, and helm, outside the tree: prints `export VARIABLE=PATH` for each that is there, on stderr the reason for
# each that is not.
#   tools/peers.sh [FILTER…]       only those whose suite a filter names; all without
# ESTIBA_PEERS: where they are kept (default: ~/.cache/estiba-peers).
set -uo pipefail
peers=${ESTIBA_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/estiba-peers}

wanted() { # SUITE FILTER…
  local suite=$1 filter
  shift
  [ $# -eq 0 ] && return 0
  for filter; do case $suite in *"${filter##*/}"*) return 0 ;; esac; done
  return 1
}

# clone DIR REPOSITORY COMMIT: that one commit, or nothing at all.
clone() {
  [ -d "$1/.git" ] && return 0
  mkdir -p "$1" && cd "$1" && git init -q && git fetch -q --depth 1 "$2" "$3" && git checkout -q FETCH_HEAD && return 0
  cd / && rm -rf "$1"
  return 1
}

# runc v1.1.15, with its helper programs and images.
runc() {
  command -v go >/dev/null || { echo 'go is not installed, and its helper programs are in Go'; return 1; }
  clone "$peers/runc" https://github.com/opencontainers/runc v1.1.15 || { echo 'its repository cannot be reached'; return 1; }
  cd "$peers/runc" && make -s recvtty sd-helper && make -s seccompagent EXTRA_BUILDTAGS=seccomp || { echo 'its helper programs do not build'; return 1; }
  images "$peers/runc/tests/integration/testdata" || { echo 'its images cannot be made'; return 1; }
}

# The images are downloads; what the cases need of them is busybox and a small Debian, which this machine has.
images() {
  local made=$1/busybox-amd64.tar.xz root applet
  [ -e "$made" ] && [ -e "$1/hello-world-amd64.tar" ] && return 0
  root=$(mktemp -d) && mkdir -p "$root"/{bin,dev,etc,tmp,root,home,var} && cp /bin/busybox "$root/bin/busybox" || return 1
  for applet in $(/bin/busybox --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
  printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd" && printf 'root:x:0:\n' >"$root/etc/group"
  tar -C "$root" -cJf "$made" . && rm -rf "$root" || return 1
  root=$(mktemp -d) && printf 'int puts(const char *); int main(void) { puts("Hello from Docker!"); return 0; }' | cc -static -x c -o "$root/hello" - &&
    tar -C "$root" -cf "$1/hello-world-amd64.tar" . && rm -rf "$root" || return 1
  mmdebstrap --variant=minbase stable "$1/debian-amd64.tar.xz" >/dev/null 2>&1 || true # the cases that use it say so themselves
}

# The commit before the one after which three programs compare pointers.
runtime_tools() {
  command -v go >/dev/null || { echo 'go is not installed, and its programs are in Go'; return 1; }
  clone "$peers/runtime-tools" https://github.com/opencontainers/runtime-tools e5b454202754ff211f8dbeb98a398b5c3d346b79 ||
    { echo 'its repository cannot be reached'; return 1; }
  cd "$peers/runtime-tools" && make -s runtimetest validation-executables || { echo 'its programs do not build'; return 1; }
}

# helm 3, from the Go module proxy.
helm() {
  command -v go >/dev/null || { echo 'go is not installed, and helm is in Go'; return 1; }
  [ -x "$peers/helm/helm" ] && return 0
  GOBIN="$peers/helm" GOFLAGS=-mod=mod CGO_ENABLED=0 nice go install helm.sh/helm/v3/cmd/helm@v3.16.4 || { echo 'it cannot be fetched or does not build'; return 1; }
}

# take VARIABLE SUITE PATH FUNCTION
take() {
  local why
  if [ -n "${!1:-}" ]; then echo "export $1=$(printf %q "${!1}")"; return; fi
  if why=$(GIT_TERMINAL_PROMPT=0 timeout "${ESTIBA_PEERS_TIMEOUT:-600}" bash -c "$(declare -f clone images "$4"); peers=$(printf %q "$peers"); $4" 2>/dev/null); then
    echo "export $1=$(printf %q "$peers/$3")"
  else
    echo "not run: $2: ${why:-it took too long}; set $1" >&2
  fi
}

# dockerode 5.0.1 with what its tests need.
dockerode() {
  clone "$peers/dockerode" https://github.com/apocas/dockerode v5.0.1 || { echo 'its repository cannot be reached'; return 1; }
  cd "$peers/dockerode" && npm ci --ignore-scripts --no-audit --no-fund || { echo 'its packages cannot be installed'; return 1; }
}

docker_py() {
  clone "$peers/docker-py" https://github.com/docker/docker-py 7.2.0 || { echo 'its repository cannot be reached'; return 1; }
}

# docker-compose 2, whose module has replacements and so is built from its own tree.
compose_v2() {
  command -v go >/dev/null || { echo 'go is not installed, and it is in Go'; return 1; }
  clone "$peers/compose" https://github.com/docker/compose v2.20.3 || { echo 'its repository cannot be reached'; return 1; }
  cd "$peers/compose" && [ -x docker-compose ] || go build -o docker-compose ./cmd || { echo 'it does not build'; return 1; }
}

# Cases of BuildKit's parser of Dockerfiles: data alone.
buildkit() {
  clone "$peers/buildkit" https://github.com/moby/buildkit dockerfile/1.26.0 || { echo 'its repository cannot be reached'; return 1; }
}

# The OCI distribution specification's conformance program.
oci_conformance() {
  command -v go >/dev/null || { echo 'go is not installed, and it is in Go'; return 1; }
  clone "$peers/distribution-spec" https://github.com/opencontainers/distribution-spec 967efdc079b91785ad18c77cc4f8991a47feefbf ||
    { echo 'its repository cannot be reached'; return 1; }
  cd "$peers/distribution-spec/conformance" && [ -x conformance ] || go build -o conformance . || { echo 'it does not build'; return 1; }
}

wanted runc-bats "$@" && take RUNC_CHECKOUT runc-bats runc runc
wanted helm "$@" && take HELM helm helm/helm helm
wanted runtime-tools "$@" && take RUNTIME_TOOLS_CHECKOUT runtime-tools runtime-tools runtime_tools
wanted dockerode "$@" && take DOCKERODE_CHECKOUT dockerode dockerode dockerode
wanted docker-py "$@" && take DOCKER_PY_CHECKOUT docker-py docker-py docker_py
wanted dockerfile-parser "$@" || wanted dockerfile-expand "$@" && take BUILDKIT_PARSER dockerfile-parser buildkit/frontend/dockerfile/parser buildkit
wanted registry/conformance "$@" && take OCI_CONFORMANCE registry/conformance distribution-spec/conformance/conformance oci_conformance
wanted compose-walk "$@" || wanted show "$@" && take COMPOSE_V2 compose-walk compose/docker-compose compose_v2
exit 0
