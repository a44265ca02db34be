# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference implementation of POOL (Protected Orchestrated Overlay Link).

The core is sans-IO: sockets, clocks and randomness live in :mod:`poolref.io` and :mod:`poolref.node`;
everything else takes the time (integer nanoseconds), random bytes and received bytes as arguments and
answers with bytes and events.  Importing this package pulls in nothing but the standard library.
"""
