/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_DEVICE_H
#define POOL_DEVICE_H

int pool_device_init(void);
void pool_device_exit(void);

#endif
