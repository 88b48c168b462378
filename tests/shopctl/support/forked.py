"""What is forked in tests: says how it finds itself, and then does as its environment says."""

import json
import os
import sys
import time


def main() -> None:
    """Say it, and wait, or end with a code or a reason."""
    said = {
        "env": dict(os.environ),
        "argv": sys.argv,
        "name": __name__,
        "group": os.getpgid(0),
        "imported": os.environ.get("IMPORTED") in sys.modules,
    }
    print(json.dumps(said), flush=True)
    then = os.environ["THEN"]
    if then == "wait":
        time.sleep(600)
    sys.exit(int(then) if then.isdecimal() else then)


if __name__ == "__main__":
    main()
