/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_PROC_H
#define POOL_PROC_H

int pool_proc_init(void);
void pool_proc_exit(void);

#endif
