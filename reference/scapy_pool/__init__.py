# SPDX-License-Identifier: GPL-2.0-or-later
"""POOL for scapy: craft, send, dissect and decrypt POOL packets.

``import scapy_pool`` is enough; after it ``load_contrib("pool")`` works as well.
"""

import sys

from .header import IP_PROTOCOL, Auth, Pool, bind_port, unbind_port
from .keyring import KeyRing, keyring
from .payloads import *  # noqa: F403
from .session import PoolSession
