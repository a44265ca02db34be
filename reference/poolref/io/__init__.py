# SPDX-License-Identifier: GPL-2.0-or-later
"""The only modules that touch sockets, files, clocks and randomness."""
