"""``python -m herdlm.cli`` is the ``herdlm`` command."""

from herdlm.cli.app import main

main()
