// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/math64.h>
#include "conn.h"
#include "counters.h"
#include "params.h"
#include "session.h"

#define ACK_DELAY_MS	20	/* SEQ-05 allows 50 */
#define ACK_MERGE	16
#define DEAD_NS		(90ULL * NSEC_PER_SEC)	/* HB-02 */

void pool_ack_work(struct work_struct *work)
{
	struct pool_session *s = container_of(to_delayed_work(work), struct pool_session, ack_work);

	pool_send_ack(s);
	pool_session_put(s);
}

void pool_owe_ack(struct pool_session *s, bool at_once)
{
	int owed = atomic_inc_return(&s->acks_owed);

	if (at_once || owed >= ACK_MERGE)
		pool_send_ack(s);
	else
		pool_session_arm(s, &s->ack_work, msecs_to_jiffies(ACK_DELAY_MS));
}

/* HB-01: the ACK that covers the heartbeat in flight. */
void pool_rtt_sample(struct pool_session *s, u64 ack)
{
	u64 sample, deviation;

	mutex_lock(&s->conn->tx_lock);
	if (!s->hb_seq || ack < s->hb_seq) {
		mutex_unlock(&s->conn->tx_lock);
		return;
	}
	sample = ktime_get_ns() - s->hb_sent_ns;
	s->hb_seq = 0;
	mutex_unlock(&s->conn->tx_lock);

	if (!s->srtt_ns) {
		WRITE_ONCE(s->srtt_ns, sample);
		return;
	}
	deviation = sample > s->srtt_ns ? sample - s->srtt_ns : s->srtt_ns - sample;
	WRITE_ONCE(s->jitter_ns, s->jitter_ns - s->jitter_ns / 8 + deviation / 8);
	WRITE_ONCE(s->srtt_ns, s->srtt_ns - s->srtt_ns / 8 + sample / 8);
}

static void measure_throughput(struct pool_session *s)
{
	u64 now = ktime_get_ns(), bytes = READ_ONCE(s->bytes_sent);
	u64 ms = max_t(u64, div_u64(now - s->rate_ns, NSEC_PER_MSEC), 1);
	u64 bps = div64_u64((bytes - s->rate_bytes) * 8 * MSEC_PER_SEC, ms);

	s->rate_bytes = bytes;
	s->rate_ns = now;
	WRITE_ONCE(s->throughput_bps, min_t(u64, bps, U32_MAX));	/* HB-03 */
}

static int send_heartbeat(struct pool_session *s)
{
	struct pool_wire_telemetry w;
	struct pool_telemetry t;

	pool_session_telemetry(s, &t);
	w.rtt_ns = cpu_to_be64(t.rtt_ns);
	w.jitter_ns = cpu_to_be64(t.jitter_ns);
	w.loss_rate_ppm = cpu_to_be32(t.loss_rate_ppm);
	w.throughput_bps = cpu_to_be32(t.throughput_bps);
	w.mtu = cpu_to_be16(t.mtu);
	w.queue_depth = cpu_to_be16(t.queue_depth);
	w.uptime_ns = cpu_to_be64(t.uptime_ns);
	w.rekey_count = cpu_to_be32(t.rekey_count);
	w.config_version = cpu_to_be32(t.config_version);
	return pool_send_control(s, POOL_HEARTBEAT, POOL_F_TELEMETRY, &w, sizeof(w));
}

void pool_heartbeat_work(struct work_struct *work)
{
	struct pool_session *s = container_of(to_delayed_work(work), struct pool_session, heartbeat_work);
	unsigned long period = pool_params.heartbeat_sec * HZ, delay;
	u64 silent = ktime_get_ns() - READ_ONCE(s->last_rx_ns);

	if (READ_ONCE(s->ended))
		goto out;
	/* While we do not read, silence says nothing about the peer (DATA-04). */
	if (READ_ONCE(s->rx_paused))
		silent = 0;
	if (silent >= DEAD_NS) {
		pool_count(peers_dead);
		pool_session_end(s, POOL_CLOSE_NONE, "nothing heard for 90 s");
		goto out;
	}
	if (time_after_eq(jiffies, s->hb_due)) {
		s->hb_due += period;
		if (time_after_eq(jiffies, s->hb_due))
			s->hb_due = jiffies + period;
		measure_throughput(s);
		if (send_heartbeat(s) == -EOVERFLOW) {
			pool_session_end(s, POOL_CODE_SEQ_INVALID, "sequence numbers exhausted");
			goto out;
		}
	}
	delay = min(pool_time_left(s->hb_due), nsecs_to_jiffies(DEAD_NS - silent) + 1);
	pool_session_arm(s, &s->heartbeat_work, pool_timer_step(delay));
	/* Since the check above the session may have ended and found no timer to cancel. */
	if (READ_ONCE(s->ended))
		pool_session_disarm(s, &s->heartbeat_work);
out:
	pool_session_put(s);
}

void pool_reap_work(struct work_struct *work)
{
	struct pool_session *s = container_of(to_delayed_work(work), struct pool_session, reap_work);

	pool_session_remove(s);
	pool_session_put(s);
}

void pool_timers_start(struct pool_session *s)
{
	s->hb_due = jiffies + pool_params.heartbeat_sec * HZ;
	pool_session_arm(s, &s->heartbeat_work, pool_timer_step(pool_time_left(s->hb_due)));
}
