#!/bin/sh
# Everything that a GPU has to show, within ten minutes, with what is installed: `make cuda`. A part
# that fails or takes too long leaves what it found, and the next goes on; the end says which ran.
# Exit status 0 where all did, 2 where there is nothing to run them on. PYTHON names the interpreter,
# MINUTES how many it may take; arguments, as `--out FOLDER` for the figures, go to gpu.py.
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-$(command -v python3 || command -v python)}
if ! command -v "$PYTHON" >/dev/null; then
    echo "${PYTHON:-python3} is not there: name an interpreter, as in PYTHON=python3.12" >&2
    exit 2
fi
MINUTES=${MINUTES:-10}
case $MINUTES in *[!0-9]* | 0*)
    echo "MINUTES must be a whole number; got $MINUTES" >&2
    exit 2
    ;;
esac
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
    timeout() { shift 5 && "$@"; } # -k 5 -s SIGNAL LIMIT
fi
ends=$(($(date +%s) + 60 * MINUTES - 10)) # the rest is for what takes no notice of its limit
failed=0
signal=TERM # what a part is sent at its limit
summary=

part() { # seconds, title, command...
    limit=$1 title=$2
    shift 2
    echo "== $title"
    started=$(date +%s)
    left=$((ends - started))
    if test $left -lt 1; then # a limit of 0 would be none
        failed=1
        say "not run: no time was left"
        return
    fi
    test $left -lt "$limit" && limit=$left
    timeout -k 5 -s "$signal" "$limit" "$@"
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
    say "$said"
}

say() { # what became of the part
    echo "-- $title: $1"
    summary="$summary
$title: $1"
}

cuda() { # seconds, part, arguments...
    limit=$1 name=$2
    shift 2
    part "$limit" "$name" "$PYTHON" bench/gpu.py "$name" "$@"
}

cuda 40 device "$@"
test "$status" = 2 && echo "== no other part was run: none can without a device" && exit 2
cuda 80 parity "$@"
cuda 60 checks "$@"
cuda 20 ceilings "$@"
cuda 100 rates --seconds 0.3 --rounds 5 "$@"
# A process each: what one library does to the device is not the other's loss.
cuda 130 torch --seconds 0.25 --rounds 3 "$@"
cuda 120 jax --seconds 0.25 --rounds 3 "$@"
if "$PYTHON" -c "import pytest" 2>/dev/null; then
    signal=INT # pytest then says how the failed ones failed
    # A module may need what isn't installed; and of the plugins that are, none is needed.
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 part 80 "tests" "$PYTHON" -m pytest -p no:cacheprovider \
        -k cupy --ignore tests/torture --tb short --continue-on-collection-errors
    signal=TERM
else
    title=tests
    say "not run: pytest is not installed"
fi
# What compiles for minutes has all that is left.
cuda $((60 * MINUTES)) slow-torch --seconds 0.25 --rounds 3 "$@"
echo "== which parts ran$summary"
exit $failed
