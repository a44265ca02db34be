# SPDX-License-Identifier: GPL-2.0-or-later
"""Where ``load_contrib("pool")`` looks: installed beside scapy's own, it stands for :mod:`scapy_pool`."""

import scapy_pool  # noqa: F401 - puts itself in this module's place
