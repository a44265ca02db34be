/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Differences between the kernels this module builds for (6.1 and later). */
#ifndef POOL_COMPAT_H
#define POOL_COMPAT_H

#include <linux/version.h>
#include <linux/socket.h>
#include <crypto/chacha.h>
#include <crypto/sha2.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "pool needs Linux 6.1 or later"
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif

/* hex2bin() */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/hex.h>
#else
#include <linux/kernel.h>
#endif

/* kernel_bind() and kernel_connect() */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
typedef struct sockaddr_unsized pool_sockaddr;
#else
typedef struct sockaddr pool_sockaddr;
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
typedef struct sha256_ctx pool_sha256;
#else
typedef struct sha256_state pool_sha256;
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
typedef struct chacha_state pool_chacha[1];
#else
typedef u32 pool_chacha[CHACHA_STATE_WORDS];
#endif

#endif
