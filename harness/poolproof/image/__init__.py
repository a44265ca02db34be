# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images, kernels, and the building of modules for them."""

from .kernels import KernelSpec
from .store import BuildTree, GuestImage, ImageStore

__all__ = ["BuildTree", "GuestImage", "ImageStore", "KernelSpec"]
