# Two commands do all the set-up on a fresh Debian machine: `make demo` runs the main job, `make test` passes the tests.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: packages demo demo-blows demo-clean test test-v2 suites soak bench lint build native clean setup setup-test typecheck pack deb

build: packages native
	node tools/build.mjs

native: 
	$(MAKE) -C native

# Compares by content and asks npm only for what is missing; never through a link, which is somebody else's directory.
packages:
	@node tools/install.mjs

setup: packages
	@tools/setup.sh base

setup-test: packages
	@tools/setup.sh base test

typecheck: packages
	npx tsc -p .
	npx tsc -p src/web/page

lint: typecheck
	npx biome check .

test: setup-test build lint
	npx vitest run --project unit --project host

# Pure cgroup v2 in a virtual machine (software emulation, about 30 s).
test-v2: packages native
	@tools/setup.sh base suites
	npx vitest run --project vm

suites: setup-test build
	@tools/setup.sh suites
	tools/suites.sh

soak: setup-test build
	SOAK=full npx vitest run --project host soak engine-model

bench: setup-test build
	@tools/setup.sh suites
	node bench/run.mjs

# Two applications from their sources to answering sites; the daemon stays. demo-blows hurts them, demo-clean removes all.
demo:
	@node tools/demo.mjs

demo-blows:
	@node tools/blows.mjs

demo-clean:
	@node tools/demo/clean.mjs

# Packages to install elsewhere: dist/estiba-VERSION.tgz for `npm i -g`, dist/estiba_VERSION_ARCH.deb for apt.
pack: build
	npm pack --silent --ignore-scripts --pack-destination dist

deb: build
	tools/deb.sh

clean:
	rm -rf dist native/build coverage .cache
