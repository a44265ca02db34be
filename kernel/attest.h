/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The module's own code, held against what it was at load (T6): /proc/pool/integrity and attestation. */
#ifndef POOL_ATTEST_H
#define POOL_ATTEST_H

#include <linux/types.h>

struct seq_file;

void pool_attest_init(void);
void pool_attest_start(void);
void pool_attest_stop(void);
/* The code is no longer what was loaded; for good (ABI-12). */
bool pool_compromised(void);
void pool_integrity_show(struct seq_file *m);
void pool_attestation_show(struct seq_file *m);

#endif
