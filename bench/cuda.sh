#!/bin/sh
# Everything that a GPU has to show, within ten minutes, with what is installed: `make cuda`. Each
# part is printed as it ends, and the next goes on where one fails. PYTHON names the interpreter.
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3}
PYTHONPATH=.:backends${PYTHONPATH:+:$PYTHONPATH}
MLPKIT_BACKEND=cupy
export PYTHONPATH MLPKIT_BACKEND
failed=0

part() { # seconds, title, command...
    limit=$1 title=$2
    shift 2
    echo "== $title"
    started=$(date +%s)
    timeout "$limit" "$@"
    status=$?
    test $status = 0 || { failed=1; echo "-- $title: failed, status $status"; }
    echo "-- $title: $(($(date +%s) - started)) s"
}

part 30 "versions and device" "$PYTHON" -c "
from mlpkit.doctor import examine
lines, well = examine()
print('\n'.join(lines))
raise SystemExit(not well)"
part 60 "parity" "$PYTHON" bench/cuda.py parity "$@"
part 30 "ceilings" "$PYTHON" bench/cuda.py ceilings "$@"
part 120 "rates" "$PYTHON" bench/cuda.py rates --seconds 0.5 --rounds 5 "$@"
part 160 "peers" "$PYTHON" bench/cuda.py peers --seconds 0.4 --rounds 3 "$@"
part 200 "tests" "$PYTHON" -m pytest -q -p no:cacheprovider
exit $failed
