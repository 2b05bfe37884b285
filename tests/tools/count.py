#!/usr/bin/env python3
"""Count the results that `meson test` wrote to its testlog.json.

Prints "PASSED FAILED SKIPPED" and, on standard error, why each skipped test was.
"""
import json
import sys

PASSED = {"OK", "EXPECTEDFAIL"}


def reason(test):
    """The last thing that a skipped test said."""
    text = (test.get("stdout", "") + "\n" + test.get("stderr", "")).strip()
    return text.splitlines()[-1] if text else "it did not say why"


def main():
    passed = failed = skipped = 0
    try:
        with open(sys.argv[1], encoding="utf-8") as log:
            tests = [json.loads(line) for line in log]
    except FileNotFoundError:
        tests = []
    for test in tests:
        if test["result"] in PASSED:
            passed += 1
        elif test["result"] == "SKIP":
            skipped += 1
            print(f"-- skipped: {test['name']}: {reason(test)}", file=sys.stderr)
        else:
            failed += 1
            print(f"-- FAILED: {test['name']}: {test['result']}", file=sys.stderr)
    print(passed, failed, skipped)


if __name__ == "__main__":
    main()
