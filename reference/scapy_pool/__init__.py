# SPDX-License-Identifier: GPL-2.0-or-later
"""POOL for scapy: craft, send, dissect and decrypt POOL packets.

``import scapy_pool``, or ``load_contrib("pool")`` in scapy.
"""

import sys

from .automaton import PoolHandshake, pool_connect
from .connection import PoolConnection
from .header import IP_PROTOCOL, Pool, bind_port, unbind_port
from .keyring import KeyRing, keyring
from .misbehaviour import misbehave, send_wrong
from .payloads import (
    Auth,
    PoolAck,
    PoolAddress,
    PoolAnnounce,
    PoolChallenge,
    PoolClose,
    PoolConfig,
    PoolData,
    PoolFragment,
    PoolHeartbeat,
    PoolInit,
    PoolIntegrityAnswer,
    PoolIntegrityChallenge,
    PoolIntegrityState,
    PoolJournal,
    PoolJournalEntry,
    PoolJournalRequest,
    PoolPeer,
    PoolPeers,
    PoolProbe,
    PoolProbeAnswer,
    PoolProof,
    PoolRekey,
    PoolResponse,
    PoolRollback,
    PoolSealed,
)
from .session import PoolSession
from .transport import PoolDatagrams, PoolStream

__all__ = [
    "IP_PROTOCOL",
    "Auth",
    "KeyRing",
    "Pool",
    "PoolAck",
    "PoolAddress",
    "PoolAnnounce",
    "PoolChallenge",
    "PoolClose",
    "PoolConfig",
    "PoolConnection",
    "PoolData",
    "PoolDatagrams",
    "PoolFragment",
    "PoolHandshake",
    "PoolHeartbeat",
    "PoolInit",
    "PoolIntegrityAnswer",
    "PoolIntegrityChallenge",
    "PoolIntegrityState",
    "PoolJournal",
    "PoolJournalEntry",
    "PoolJournalRequest",
    "PoolPeer",
    "PoolPeers",
    "PoolProbe",
    "PoolProbeAnswer",
    "PoolProof",
    "PoolRekey",
    "PoolResponse",
    "PoolRollback",
    "PoolSealed",
    "PoolSession",
    "PoolStream",
    "bind_port",
    "keyring",
    "misbehave",
    "pool_connect",
    "send_wrong",
    "unbind_port",
]

# load_contrib() imports scapy.contrib.<name>: where that is installed it imports this, otherwise this is it.
sys.modules["scapy.contrib.pool"] = sys.modules[__name__]
