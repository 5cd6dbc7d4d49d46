"""`python -m spine_async.cli` is the command `spine-async`."""

from spine_async.cli.main import main

if __name__ == "__main__":
    main()
