#!/usr/bin/env bash
# Adds up the closing lines of cargo test, nextest and pytest in the given logs: "N passed, N failed, N skipped".
set -euo pipefail

{ cat -- "$@" 2>/dev/null || true; } | sed 's/\x1b\[[0-9;]*m//g' | awk '
    # Reads the number before `word` out of the line.
    function count(word,    at) {
        return match($0, "[0-9]+ " word) ? substr($0, RSTART, RLENGTH) + 0 : 0
    }
    /^ *Summary \[/ || /^test result: / || /^=+ .* in [0-9.]+s.* =+$/ {
        passed += count("passed")
        failed += count("failed") + count("error") + count("timed out")
        skipped += count("skipped")
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }'
