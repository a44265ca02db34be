// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <crypto/sha2.h>
#include "attest.h"
#include "conn.h"
#include "journal.h"
#include "params.h"
#include "session.h"

#define PERIOD	(30 * HZ)

/* The bounds of the section .text: the first and the last object file define them. */
extern const u8 pool_text_begin[], pool_text_end[];

static void check_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(check_work, check_work_fn);

static DEFINE_MUTEX(attest_lock);	/* innermost but for the journal's */
static u8 loaded[SHA256_DIGEST_SIZE], last[SHA256_DIGEST_SIZE];
static u64 checks;
static time64_t checked_at;
static char reason[64] = "none";
static bool compromised;

bool pool_compromised(void)
{
	return READ_ONCE(compromised);
}

static void check(void)
{
	bool alarm = false;

	mutex_lock(&attest_lock);
	sha256(pool_text_begin, pool_text_end - pool_text_begin, last);
	checks++;
	checked_at = ktime_get_real_seconds();
	if (!compromised && memcmp(last, loaded, sizeof(last))) {
		alarm = true;
		snprintf(reason, sizeof(reason), ".text changed after load, seen at %lld", checked_at);
		WRITE_ONCE(compromised, true);
	}
	mutex_unlock(&attest_lock);
	if (!alarm)
		return;
	pr_alert("pool: the module's code changed after it was loaded: no new sessions\n");
	pool_journal(POOL_CHANGE_INTEGRITY, "this node: .text changed after load");
	pool_sessions_distrust("this node's code changed after load");
}

static void check_work_fn(struct work_struct *work)
{
	check();
	queue_delayed_work(pool_wq, &check_work, pool_timer_step(PERIOD));
}

void pool_attest_init(void)
{
	sha256(pool_text_begin, pool_text_end - pool_text_begin, loaded);
}

void pool_attest_start(void)
{
	check_work_fn(NULL);
}

void pool_attest_stop(void)
{
	cancel_delayed_work_sync(&check_work);
}

void pool_integrity_show(struct seq_file *m)
{
	check();
	mutex_lock(&attest_lock);
	seq_printf(m, "Integrity status: %s\n", compromised ? "COMPROMISED" : "OK");
	seq_printf(m, "Last check: %lld\n", checked_at);
	seq_printf(m, "Checks: %llu\n", checks);
	seq_printf(m, "Last failure: %s\n", reason);
	mutex_unlock(&attest_lock);
}

void pool_attestation_show(struct seq_file *m)
{
	u8 head[SHA256_DIGEST_SIZE];

	check();
	pool_journal_head(head);
	seq_printf(m, "Module: %s %s\n", THIS_MODULE->name, THIS_MODULE->version);
	seq_printf(m, "Protocol: v%d\n", POOL_VERSION);
	mutex_lock(&attest_lock);
	seq_printf(m, "Integrity status: %s\n", compromised ? "COMPROMISED" : "OK");
	seq_printf(m, "Text SHA-256: %*phN\n", (int)sizeof(last), last);
	mutex_unlock(&attest_lock);
	seq_printf(m, "Node pubkey: %*phN\n", POOL_KEY_LEN, pool_node_pubkey);
	seq_printf(m, "Journal head: %*phN\n", (int)sizeof(head), head);
}
