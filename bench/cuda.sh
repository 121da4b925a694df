#!/bin/sh
# Everything that a GPU has to show, within ten minutes, with what is installed: `make cuda`. A part
# that fails or takes too long leaves what it found, and the next goes on; the end says which ran.
# Exit status 0 where all did, 2 where there is nothing to run them on. PYTHON names the interpreter.
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-$(command -v python3 || command -v python)}
if ! command -v "$PYTHON" >/dev/null; then
    echo "${PYTHON:-python3} is not there: name an interpreter, as in PYTHON=python3.12" >&2
    exit 2
fi
PYTHONPATH=$PWD:$PWD/backends${PYTHONPATH:+:$PYTHONPATH}
MLPKIT_BACKEND=cupy
export PYTHONPATH MLPKIT_BACKEND
unset CUPY_TF32 NVIDIA_TF32_OVERRIDE # float32's own products, as the others have
# CuPy keeps what it compiles in the home, and can't be imported where that can't be written to.
cache=${CUPY_CACHE_DIR:-${HOME:-/dev/null}/.cupy/kernel_cache}
if ! mkdir -p "$cache" 2>/dev/null || ! test -w "$cache"; then
    CUPY_CACHE_DIR=$(mktemp -d) && export CUPY_CACHE_DIR && trap 'rm -rf "$CUPY_CACHE_DIR"' EXIT
fi
if ! command -v timeout >/dev/null; then
    echo "there is no timeout command: each part takes as long as it likes"
    timeout() { shift 3 && "$@"; } # -k 5 LIMIT
fi
failed=0
summary=

part() { # seconds, title, command...
    limit=$1 title=$2
    shift 2
    echo "== $title"
    started=$(date +%s)
    timeout -k 5 "$limit" "$@"
    status=$?
    took="$(($(date +%s) - started)) s"
    case $status in
    0) said="well, $took" ;;
    1) said="FAILED, $took: see above" failed=1 ;;
    124) said="stopped after its $limit s: what it found until then stands above" failed=1 ;;
    137) said="killed after $took: it took no notice of its limit of $limit s, or the memory ran out"
        failed=1 ;;
    *) said="not run to its end, status $status, $took: see above" failed=1 ;;
    esac
    echo "-- $title: $said"
    summary="$summary
$title: $said"
}

cuda() { # seconds, part, arguments...
    limit=$1 name=$2
    shift 2
    part "$limit" "$name" "$PYTHON" bench/gpu.py "$name" "$@"
}

cuda 40 device "$@"
test "$status" = 2 && echo "== no other part was run: none can without a device" && exit 2
cuda 80 parity "$@"
cuda 80 checks "$@"
cuda 20 ceilings "$@"
cuda 80 rates --seconds 0.5 --rounds 5 "$@"
cuda 130 peers --seconds 0.4 --rounds 3 "$@"
if "$PYTHON" -c "import pytest" 2>/dev/null; then
    part 75 "tests" "$PYTHON" -m pytest -v -p no:cacheprovider -k cupy \
        --continue-on-collection-errors # a module may need what isn't installed
else
    summary="$summary
tests: not run: pytest is not installed"
fi
cuda 80 slow-peers --seconds 0.4 --rounds 3 "$@"
echo "== which parts ran$summary"
exit $failed
