/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_CONNECT_H
#define POOL_CONNECT_H

#include <linux/in6.h>

/* Connect and shake hands: the new session's index, or an error. IPv4 is mapped. */
int pool_connect(const struct in6_addr *peer, u16 port);

#endif
