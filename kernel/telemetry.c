// SPDX-License-Identifier: GPL-2.0-or-later
/* Heartbeats, round-trip time, and the figures that each side reports: section 12. */
#include <linux/math64.h>
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "parts.h"
#include "session.h"

#define DEAD_NS		(90ULL * NSEC_PER_SEC)	/* HB-02 */

static u32 loss_ppm(const struct pool_session *s)
{
	u64 lost = READ_ONCE(s->packets_lost), total = READ_ONCE(s->packets_recv) + lost;

	return total ? mul_u64_u64_div_u64(lost, 1000000, total) : 0;
}

void pool_session_telemetry(struct pool_session *s, struct pool_telemetry *t)
{
	u64 started = READ_ONCE(s->started_ns);

	memset(t, 0, sizeof(*t));
	t->rtt_ns = READ_ONCE(s->srtt_ns);
	t->jitter_ns = READ_ONCE(s->jitter_ns);
	t->loss_rate_ppm = loss_ppm(s);
	t->throughput_bps = READ_ONCE(s->throughput_bps);
	t->mtu = READ_ONCE(s->mtu);
	t->queue_depth = min_t(u32, READ_ONCE(s->rxq_len), U16_MAX);
	t->uptime_ns = started ? ktime_get_ns() - started : 0;
	t->rekey_count = READ_ONCE(s->rekey.count);
	t->config_version = pool_config_version();
}

/* HB-01: the ACK that covers the heartbeat in flight. */
void pool_rtt_acked(struct pool_session *s, u64 ack)
{
	struct pool_marked heartbeat;
	u64 sample, deviation;

	if (!pool_mark_acked(s, POOL_MARK_HEARTBEAT, ack, &heartbeat))
		return;
	sample = ktime_get_ns() - heartbeat.sent_ns;
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
	return pool_send_control(s, POOL_HEARTBEAT, POOL_F_TELEMETRY, POOL_MARK_HEARTBEAT, &w, sizeof(w));
}

void pool_heartbeat_receive(struct pool_session *s, const u8 *plaintext, u32 len)
{
	const struct pool_wire_telemetry *t = (const void *)plaintext;

	if (len != sizeof(*t)) {
		pool_count(malformed);
		return;
	}
	s->peer.rtt_ns = be64_to_cpu(t->rtt_ns);
	s->peer.jitter_ns = be64_to_cpu(t->jitter_ns);
	s->peer.loss_rate_ppm = be32_to_cpu(t->loss_rate_ppm);
	s->peer.throughput_bps = be32_to_cpu(t->throughput_bps);
	s->peer.mtu = be16_to_cpu(t->mtu);
	s->peer.queue_depth = be16_to_cpu(t->queue_depth);
	s->peer.uptime_ns = be64_to_cpu(t->uptime_ns);
	s->peer.rekey_count = be32_to_cpu(t->rekey_count);
	s->peer.config_version = be32_to_cpu(t->config_version);
}

void pool_heartbeat_timer(struct pool_session *s, u64 now)
{
	pool_part_set(s, POOL_PART_HEARTBEAT, now + pool_config_params().heartbeat_sec * NSEC_PER_SEC);
	measure_throughput(s);
	if (send_heartbeat(s) == -EOVERFLOW)
		pool_session_end_locked(s, POOL_CODE_SEQ_INVALID, "sequence numbers exhausted");
}

void pool_silence_timer(struct pool_session *s, u64 now)
{
	if (now >= s->last_rx_ns + DEAD_NS) {
		pool_count(peers_dead);
		pool_session_end_locked(s, POOL_CLOSE_NONE, "nothing heard for 90 s");
		return;
	}
	pool_part_set(s, POOL_PART_SILENCE, s->last_rx_ns + DEAD_NS);
}

void pool_telemetry_start(struct pool_session *s)
{
	s->last_rx_ns = s->started_ns;
	s->rate_ns = s->started_ns;
	pool_part_set(s, POOL_PART_HEARTBEAT, s->started_ns + pool_config_params().heartbeat_sec * NSEC_PER_SEC);
	pool_part_set(s, POOL_PART_SILENCE, s->started_ns + DEAD_NS);
}
