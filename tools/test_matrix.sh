#!/usr/bin/env bash
# Runs `make test` on several versions of Python and of what it needs, each in an environment of its
# own outside the checkout, on a clone of the last commit.
#
#   tools/test_matrix.sh --json results/reliability/matrix.json
#   tools/test_matrix.sh --json OUT python3.12 python3.10:torch==2.4.1,torchvision==0.19.1
#
# An entry is an interpreter and, after a colon, versions in place of those in constraints.txt.
# Without entries: the oldest and the newest that are supported.
#
#   --json OUT   file for what passed (results so far are written after each entry)
#   --work DIR   where clone and environments go; they stay there, and a later call uses them again
#                (without it: a temporary folder, removed at the end)
#   --dry-run    only says what would be done; writes nothing
#
# Needs git, make, the interpreters, and gigabytes of disk an entry. The exit code is 1 unless all
# passed. PYTEST_ARGS replaces the arguments of pytest that the Makefile gives.
set -euo pipefail

ENTRIES=(
    # torch 2.4 and what it was released with; its triton is not the constraint file's.
    "python3.10:torch==2.4.0,torchvision==0.19.0,triton==3.0.0"
    "python3.13"
)

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

fail() {
    echo "error: $*" >&2
    exit 2
}

json="" work="" dry_run=false given=()
while (($#)); do
    case "$1" in
        --json | --work)
            (($# > 1)) || fail "$1 needs a value"
            if [[ $1 == --json ]]; then json=$2; else work=$2; fi
            shift
            ;;
        --dry-run) dry_run=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*) fail "unknown option $1; --help lists them" ;;
        *) given+=("$1") ;;
    esac
    shift
done
((${#given[@]} == 0)) || ENTRIES=("${given[@]}")

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
commit=$(git -C "$root" rev-parse HEAD) || fail "$root is no git checkout"
[[ -z $(git -C "$root" status --porcelain) ]] \
    || echo "note: uncommitted changes are not tested, only commit ${commit:0:12}" >&2
for entry in "${ENTRIES[@]}"; do
    python=${entry%%:*}
    command -v "$python" >/dev/null || fail "there is no interpreter $python"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || fail "$python does not run, or is older than Python 3.10"
    [[ $entry =~ ^[^:]+(:[A-Za-z0-9._-]+==[^=,]+(,[A-Za-z0-9._-]+==[^=,]+)*)?$ ]] \
        || fail "$entry is not PYTHON or PYTHON:NAME==VERSION,..."
done

# constraints FILE VERSIONS: constraints.txt with NAME==VERSION,... in place of the lines of NAME.
constraints() {
    cp "$root/constraints.txt" "$1"
    local version
    for version in ${2//,/ }; do
        sed -i.old "/^${version%%==*}==/d" "$1"
        rm -f "$1.old"
        echo "$version" >>"$1"
    done
}

# record ENTRY VENV SECONDS STATUS JUNIT: adds what became of an entry to the JSON file, under the
# interpreter's name without its folder.
record() {
    "${1%%:*}" - "$json" "$commit" "$@" <<'PYTHON'
import json, os, subprocess, sys
import xml.etree.ElementTree as ElementTree

path, commit, entry, venv, seconds, status, junit = sys.argv[1:]
python, colon, versions = entry.partition(":")
entry = os.path.basename(python) + colon + versions
names = ("torch", "torchvision", "numpy", "detectron2", "scipy", "h5py", "pycocotools")
asked = (
    "import importlib.metadata as m, json, platform\n"
    "found = {d.metadata['Name']: d.version for d in m.distributions()}\n"
    f"kept = {{n: v for n, v in found.items() if n in {names!r} or n.startswith('opencv')}}\n"
    "print(json.dumps({'python': platform.python_version(), **kept}))"
)
run = {"entry": entry, "passed": status == "0", "seconds": int(seconds)}
try:
    answer = subprocess.run(
        [os.path.join(venv, "bin", "python"), "-c", asked], capture_output=True, text=True
    )
    run["versions"] = json.loads(answer.stdout or "{}")
except OSError:
    run["versions"] = {}
try:
    suite = next(ElementTree.parse(junit).iter("testsuite"))
    run |= {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
except (OSError, ElementTree.ParseError):
    run["stopped"] = "before the tests"  # by the installation, or the linter
runs = []
if os.path.exists(path):
    with open(path, encoding="utf-8") as stream:
        known = json.load(stream)
    if known.get("commit") == commit:
        runs = [one for one in known["runs"] if one["entry"] != entry]
os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
with open(path + ".tmp", "w", encoding="utf-8") as stream:
    json.dump({"commit": commit, "runs": [*runs, run]}, stream, indent=2)
    stream.write("\n")
os.replace(path + ".tmp", path)
PYTHON
}

if ! $dry_run; then
    if [[ -z $work ]]; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
    else
        parent=$(cd "$(dirname "$work")" && pwd) || fail "the folder around $work does not exist"
        work=$parent/$(basename "$work")
        [[ $work/ != "$root"/* ]] || fail "--work lies in the checkout; choose a folder outside"
        mkdir -p "$work"
    fi
    rm -rf "$work/checkout"
    git clone --quiet --no-hardlinks "$root" "$work/checkout"
    git -C "$work/checkout" checkout --quiet "$commit"
fi

trap 'exit 130' INT
failed=0 number=0
for entry in "${ENTRIES[@]}"; do
    number=$((number + 1))
    python=${entry%%:*} versions=""
    [[ $entry != *:* ]] || versions=${entry#*:}
    name=$(printf '%s' "$entry" | tr -c 'A-Za-z0-9.\n' '_')
    echo "[$number/${#ENTRIES[@]}] $("$python" --version), ${versions:-versions of constraints.txt}"
    if $dry_run; then
        file=$(mktemp)
        constraints "$file" "$versions"
        diff "$root/constraints.txt" "$file" || true
        rm -f "$file"
        echo "make test PYTHON=$python VENV=$name CONSTRAINTS=$name.txt"
        continue
    fi
    constraints "$work/$name.txt" "$versions"
    rm -f "$work/$name.xml"
    start=$SECONDS status=0
    make --directory "$work/checkout" test PYTHON="$python" VENV="$work/$name" \
        CONSTRAINTS="$work/$name.txt" \
        PYTEST_ARGS="--junitxml=$work/$name.xml ${PYTEST_ARGS---numprocesses auto --dist loadfile}" || status=$?
    [[ -z $json ]] \
        || record "$entry" "$work/$name" $((SECONDS - start)) "$status" "$work/$name.xml"
    if ((status)); then
        echo "FAILED: $entry" >&2
        failed=1
    fi
done
exit "$failed"
