"""Keeps the ports of a group of this machine's processes on its loopback interface.

Torch's store listens on all interfaces, whatever address it is given, and gloo on that of the machine's name. Whoever
reaches such a port takes part in the group, and what its processes exchange is pickled.
"""

from __future__ import annotations

import datetime
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

LOOPBACK = "127.0.0.1"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def loopback_store(world: int, timeout: datetime.timedelta) -> TCPStore:
    """A store for ``world`` processes that listens on the loopback address alone, at any free port."""
    from torch._C._distributed_c10d import TCPStore

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((LOOPBACK, 0))
    listener.listen(2048)
    port = listener.getsockname()[1]
    return TCPStore(
        LOOPBACK,
        port,
        world,
        is_master=True,
        wait_for_workers=False,
        timeout=timeout,
        master_listen_fd=listener.detach(),  # which the store closes
    )


def on_loopback() -> None:
    """Let gloo and NCCL in this process and those that it starts use the loopback interface, unless the user chose."""
    if (interface := _loopback_name()) is not None:
        for name in INTERFACES:
            os.environ.setdefault(name, interface)


def _loopback_name() -> str | None:
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), None)
