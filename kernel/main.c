// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/module.h>
#include <linux/rcupdate.h>
#include "conn.h"
#include "attest.h"
#include "config.h"
#include "cookie.h"
#include "device.h"
#include "faults.h"
#include "journal.h"
#include "params.h"
#include "peers.h"
#include "proc.h"
#include "raw.h"
#include "selftest.h"
#include "session.h"

static char *transport = "tcp";
static uint version = POOL_VERSION;
bool pool_remote_admin = true;
uint pool_integrity_sec = 45;
static char *peers = "";
static uint difficulty = 16, heartbeat_sec = 5, rekey_packets = 1 << 28, rekey_sec = 3600;
module_param(transport, charp, 0444);
MODULE_PARM_DESC(transport, "transport of new sessions: tcp, raw (IP protocol 253) or auto (raw, and tcp where that is not answered)");
module_param(version, uint, 0444);
MODULE_PARM_DESC(version, "protocol version: 1 (2 is not built yet)");
module_param(difficulty, uint, 0444);
MODULE_PARM_DESC(difficulty, "leading zero bits asked of a client's puzzle solution, 16-20");
module_param(heartbeat_sec, uint, 0444);
MODULE_PARM_DESC(heartbeat_sec, "seconds between heartbeats, 1-30");
module_param(rekey_packets, uint, 0444);
MODULE_PARM_DESC(rekey_packets, "packets after which a key is replaced, 1024-268435456");
module_param(rekey_sec, uint, 0444);
MODULE_PARM_DESC(rekey_sec, "seconds after which a key is replaced, 10-3600");
module_param_named(integrity_sec, pool_integrity_sec, uint, 0444);
MODULE_PARM_DESC(integrity_sec, "seconds between integrity challenges, 1-3600; 0: none");
module_param(peers, charp, 0444);
MODULE_PARM_DESC(peers, "peers always known: ip:port[:pubkey], an IPv6 address in brackets, separated by commas");
module_param_named(remote_admin, pool_remote_admin, bool, 0444);
MODULE_PARM_DESC(remote_admin, "may peers change the configuration and read the journal: Y or N");

static const char *const transports[] = {
	[POOL_OVER_TCP] = "tcp",
	[POOL_OVER_RAW] = "raw",
	[POOL_OVER_AUTO] = "auto",
};

enum pool_transport pool_transport;
struct workqueue_struct *pool_wq;
u8 pool_node_pubkey[POOL_KEY_LEN];
static u8 node_private[POOL_KEY_LEN];
static u64 loaded_ns;

u32 pool_uptime_sec(void)
{
	return div_u64(ktime_get_ns() - loaded_ns, NSEC_PER_SEC);
}

static int check_params(void)
{
	struct pool_params params = {
		.difficulty = min(difficulty, 255U),
		.heartbeat_sec = min(heartbeat_sec, 65535U),
		.rekey_packets = rekey_packets,
		.rekey_sec = rekey_sec,
		.mtu_min = POOL_MTU_LEAST,
		.mtu_max = POOL_MTU_MOST,
	};
	const char *wrong;
	int err;

	err = match_string(transports, ARRAY_SIZE(transports), transport);
	if (err < 0) {
		pr_err("pool: transport must be tcp, raw or auto\n");
		return -EINVAL;
	}
	pool_transport = err;
	if (version == 2) {
		pr_err("pool: version=2 is not built yet, only 1 is\n");
		return -EOPNOTSUPP;
	}
	if (version != POOL_VERSION) {
		pr_err("pool: version must be 1 or 2\n");
		return -EINVAL;
	}
	wrong = pool_params_wrong(&params);
	if (wrong) {
		pr_err("pool: %s is out of range\n", wrong);
		return -EINVAL;
	}
	if (pool_integrity_sec > 3600) {
		pr_err("pool: integrity_sec is out of range\n");
		return -EINVAL;
	}
	pool_config_init(&params);
	return pool_peers_parse(peers);
}

static int make_node_key(void)
{
	int err = pool_random(node_private, sizeof(node_private));

	if (err)
		return err;
	return pool_x25519_public(pool_node_pubkey, node_private) ? 0 : -EIO;
}

static int __init load(void)
{
	int err = check_params();

	if (err)
		return err;
	loaded_ns = ktime_get_ns();
	if (pool_fault("counters"))
		pool_counters_exhaust();
	pool_attest_init();
	err = pool_selftest();
	if (err)
		return err;
	err = make_node_key();
	if (!err)
		err = pool_cookie_init();
	if (err) {
		pr_err("pool: no random bytes (%d)\n", err);
		goto wipe;
	}
	err = pool_journal_init();
	if (err)
		goto wipe;
	pool_wq = alloc_workqueue("pool", WQ_UNBOUND, 0);
	if (!pool_wq) {
		err = -ENOMEM;
		goto journal;
	}
	if (pool_transport != POOL_OVER_TCP) {
		err = pool_raw_start();
		if (err) {
			pr_err("pool: cannot open a raw IP socket (%d)\n", err);
			goto workqueue;
		}
	}
	err = pool_proc_init();
	if (err) {
		pr_err("pool: cannot create /proc/pool (%d)\n", err);
		goto raw;
	}
	err = pool_device_init();
	if (err) {
		pr_err("pool: cannot register /dev/pool (%d)\n", err);
		goto proc;
	}
	pool_cookie_start();
	pool_attest_start();
	pr_info("pool: version %s loaded, protocol %d, transport %s\n", THIS_MODULE->version, POOL_VERSION,
		transports[pool_transport]);
	return 0;

proc:
	pool_proc_exit();
raw:
	pool_raw_stop();
workqueue:
	destroy_workqueue(pool_wq);
journal:
	pool_journal_exit();
wipe:
	pool_cookie_exit();
	memzero_explicit(node_private, sizeof(node_private));
	return err;
}

static int __init pool_module_init(void)
{
	return pool_faults_loaded(load());
}

static void __exit pool_module_exit(void)
{
	pool_device_exit();
	pool_proc_exit();
	pool_conns_stop_receiving();
	pool_attest_stop();
	pool_listener_stop();
	pool_sessions_shutdown();
	pool_conns_shutdown();
	pool_raw_stop();
	pool_cookie_exit();
	pool_conns_await_freed();
	destroy_workqueue(pool_wq);
	pool_table_wipe();
	pool_journal_exit();
	memzero_explicit(node_private, sizeof(node_private));
	/* Socket callbacks run under RCU: none is on its way into our text after this. */
	synchronize_rcu();
	pool_faults_unloaded();
	pr_info("pool: unloaded\n");
}

module_init(pool_module_init);
module_exit(pool_module_exit);

MODULE_DESCRIPTION("POOL, Protected Orchestrated Overlay Link: encrypted sessions over TCP and raw IP");
MODULE_AUTHOR("poolproof");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_SOFTDEP("pre: libcurve25519 libchacha libpoly1305");
