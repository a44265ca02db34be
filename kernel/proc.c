// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/ipv6.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/ipv6.h>
#include "attest.h"
#include "conn.h"
#include "counters.h"
#include "faults.h"
#include "journal.h"
#include "params.h"
#include "peers.h"
#include "proc.h"
#include "session.h"

static void show_peer(struct seq_file *m, const struct pool_session *s)
{
	if (ipv6_addr_v4mapped(&s->conn->peer))
		seq_printf(m, "%pI4", &s->conn->peer.s6_addr32[3]);
	else
		seq_printf(m, "%pI6c", &s->conn->peer);
}

static void each_session(struct seq_file *m, void (*show)(struct seq_file *m, struct pool_session *s))
{
	struct pool_session *s;
	u32 i;

	for (i = 0; i < POOL_MAX_SESSIONS; i++) {
		s = pool_session_find(i);
		if (s) {
			show(m, s);
			pool_session_put(s);
		}
	}
}

static int status_show(struct seq_file *m, void *v)
{
	u16 port = pool_listener_port();
	struct pool_config_ref ref;
	bool tentative;

	seq_printf(m, "POOL Protocol v%d\n", POOL_VERSION);
	seq_printf(m, "Status: %s\n", port ? "listening" : "idle");
	seq_printf(m, "Listen port: %u\n", port);
	seq_printf(m, "Active sessions: %u / %d\n", pool_table_count(), POOL_MAX_SESSIONS);
	seq_printf(m, "Node pubkey: %*phN\n", (int)sizeof(pool_node_pubkey), pool_node_pubkey);
	seq_printf(m, "Journal entries: %u\n", pool_journal_entries());
	ref = pool_config_current(&tentative);
	seq_printf(m, "Configuration: %u%s\n", ref.version, tentative ? " (tentative)" : "");
	return 0;
}

static void session_line(struct seq_file *m, struct pool_session *s)
{
	seq_printf(m, "%d ", s->index);
	show_peer(m, s);
	seq_printf(m, " %u %s %llu %llu %llu %u\n", s->conn->peer_port,
		   pool_state_name(READ_ONCE(s->state)), READ_ONCE(s->bytes_sent), READ_ONCE(s->bytes_recv),
		   READ_ONCE(s->packets_sent), READ_ONCE(s->rekey.count));
}

static int sessions_show(struct seq_file *m, void *v)
{
	seq_puts(m, "IDX PEER PORT STATE SENT RECV PKTS_SENT REKEYS\n");
	each_session(m, session_line);
	return 0;
}

static void telemetry_line(struct seq_file *m, struct pool_session *s)
{
	struct pool_telemetry t;

	pool_session_telemetry(s, &t);
	seq_printf(m, "%d %llu %llu %u %u %u %llu\n", s->index, div_u64(t.rtt_ns, NSEC_PER_USEC),
		   div_u64(t.jitter_ns, NSEC_PER_USEC), t.loss_rate_ppm, t.throughput_bps / 1000000, t.mtu,
		   div_u64(t.uptime_ns, NSEC_PER_SEC));
}

static int telemetry_show(struct seq_file *m, void *v)
{
	seq_puts(m, "IDX RTT(us) JITTER(us) LOSS(ppm) THRU(Mbps) MTU UPTIME(s)\n");
	each_session(m, telemetry_line);
	return 0;
}

static void details_line(struct seq_file *m, struct pool_session *s)
{
	seq_printf(m, "idx=%d id=%*phN role=%s transport=%s version=%d epoch=%u mtu=%u subs=", s->index,
		   POOL_ID_LEN, s->id, s->role == POOL_CLIENT ? "client" : "server", s->conn->raw ? "raw" : "tcp", POOL_VERSION,
		   READ_ONCE(s->rekey.epoch), READ_ONCE(s->mtu));
	if (bitmap_empty(s->subscribed, POOL_CHANNELS))
		seq_puts(m, "none");
	else
		seq_printf(m, "%*pbl", POOL_CHANNELS, s->subscribed);
	seq_printf(m, " untrusted=%d proposal=%s replica=%llu\n", READ_ONCE(s->untrusted), pool_proposal_name(s),
		   READ_ONCE(s->replica.next) - READ_ONCE(s->replica.first));
}

static int details_show(struct seq_file *m, void *v)
{
	each_session(m, details_line);
	return 0;
}

static int counters_show(struct seq_file *m, void *v)
{
	pool_counters_show(m);
	return 0;
}

static int peers_show(struct seq_file *m, void *v)
{
	pool_peers_show(m);
	return 0;
}

static int integrity_show(struct seq_file *m, void *v)
{
	pool_integrity_show(m);
	return 0;
}

static int attestation_show(struct seq_file *m, void *v)
{
	pool_attestation_show(m);
	return 0;
}

static struct proc_dir_entry *proc_dir;

int pool_proc_init(void)
{
	if (pool_fault("proc"))
		return -ENOMEM;
	proc_dir = proc_mkdir("pool", NULL);
	if (!proc_dir)
		return -ENOMEM;
	if (proc_create_single("status", 0444, proc_dir, status_show) &&
	    proc_create_single("sessions", 0444, proc_dir, sessions_show) &&
	    proc_create_single("telemetry", 0444, proc_dir, telemetry_show) &&
	    proc_create_single("details", 0444, proc_dir, details_show) &&
	    proc_create_single("counters", 0444, proc_dir, counters_show) &&
	    proc_create_single("peers", 0444, proc_dir, peers_show) &&
	    proc_create_single("integrity", 0444, proc_dir, integrity_show) &&
	    proc_create_single("attestation", 0444, proc_dir, attestation_show) &&
	    proc_create_seq("journal", 0444, proc_dir, &pool_journal_seq))
		return 0;
	proc_remove(proc_dir);
	return -ENOMEM;
}

void pool_proc_exit(void)
{
	/* Waits for readers. */
	proc_remove(proc_dir);
}
