# SPDX-License-Identifier: GPL-2.0-or-later
"""Test vectors: reading spec/vectors and running them against an implementation on its stdin and stdout."""
