// SPDX-License-Identifier: GPL-2.0-or-later
/* A session's packets, from the top to the bottom of SEAL-05. */
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "parts.h"
#include "reliable.h"
#include "session.h"

/* WIRE-03, WIRE-08, D-01: what no packet of any state may be. */
bool pool_header_malformed(const struct pool_hdr *h)
{
	u16 flags = pool_hdr_flags(h), len = pool_hdr_payload_len(h);
	u8 type = pool_hdr_type(h);

	return h->reserved0 || h->reserved1 || (flags & (POOL_F_RESERVED | POOL_F_COMPRESSED)) ||
	       (h->channel && type != POOL_DATA) || ((flags & POOL_F_ENCRYPTED) && len <= POOL_TAG_LEN) ||
	       (type == POOL_ACK && len);
}

/* WIRE-08: once keys exist, every payload is sealed; only the end of a RESPONSE is. */
static bool payload_malformed(const struct pool_hdr *h)
{
	u16 len = pool_hdr_payload_len(h);

	if (pool_hdr_type(h) == POOL_RESPONSE && len < sizeof(struct pool_response))
		return true;
	return len && !(pool_hdr_flags(h) & POOL_F_ENCRYPTED);
}

bool pool_window_fresh(const struct pool_window *w, u64 seq)
{
	u64 behind;

	if (seq > w->highest)
		return true;
	behind = w->highest - seq;
	return behind < 64 && !(w->seen >> behind & 1);
}

/* A fresh seq into the window; lost is what it changes in the count of lost packets (SEQ-04). */
static void window_commit(struct pool_window *w, u64 seq, s64 *lost)
{
	if (seq > w->highest) {
		u64 ahead = seq - w->highest;

		*lost = ahead - 1;
		w->seen = ahead < 64 ? w->seen << ahead : 0;
		w->seen |= 1;
		WRITE_ONCE(w->highest, seq);
	} else {
		*lost = -1;
		w->seen |= 1ULL << (w->highest - seq);
	}
}

static bool in_peers_range(const struct pool_session *s, u64 seq)
{
	if (s->role == POOL_SERVER)
		return seq < POOL_SEQ_CLIENT_END;
	return seq >= POOL_SEQ_SERVER && seq < POOL_SEQ_SERVER_END;
}

static void receive_close(struct pool_session *s, const u8 *plaintext, u32 len)
{
	char why[32];

	if (len > 1) {
		pool_count(malformed);
		return;
	}
	if (s->rel)
		pool_owe_ack(s, true);		/* before the keys are gone */
	snprintf(why, sizeof(why), "closed by the peer, code %u", len ? plaintext[0] : 0);
	pool_session_end_locked(s, POOL_CLOSE_NONE, why);
}

static bool ack_valid(const struct pool_session *s, u64 ack)
{
	return ack >= s->tx_first && ack < READ_ONCE(s->tx_next);
}

/* An ACK that may acknowledge something we sent. */
static void acknowledged(struct pool_session *s, const struct pool_hdr *h)
{
	u64 ack = be64_to_cpu(h->ack);

	if (!ack_valid(s, ack))
		return;
	pool_rtt_acked(s, ack);
	pool_configure_acked(s, h);
	pool_vigil_acked(s, ack);
}

void pool_session_act(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len, bool old_keys)
{
	if (!pool_state_takes(s->state, pool_hdr_type(h)))
		return;
	switch (pool_hdr_type(h)) {
	case POOL_DATA:
		pool_data_receive(s, h, plaintext, len);
		break;
	case POOL_ACK:
		acknowledged(s, h);
		break;
	case POOL_HEARTBEAT:
		pool_heartbeat_receive(s, plaintext, len);
		break;
	case POOL_CONFIG:
		pool_config_receive(s, h, plaintext, len);
		break;
	case POOL_ROLLBACK:
		pool_rollback_receive(s, h, len);
		break;
	case POOL_DISCOVER:
		if (pool_hdr_flags(h) & POOL_F_TELEMETRY)
			pool_exchange_receive(s, h, plaintext, len);
		else
			pool_mtu_receive(s, h, plaintext, len);
		break;
	case POOL_JOURNAL:
		pool_replica_receive(s, h, plaintext, len);
		break;
	case POOL_REKEY:
		pool_rekey_receive(s, h, plaintext, len, old_keys);
		break;
	case POOL_CLOSE:
		receive_close(s, plaintext, len);
		break;
	case POOL_INTEGRITY:
		pool_vigil_receive(s, h, plaintext, len);
		break;
	}
}

/* The keys under which the packet is authentic, or NULL (RK-04). */
static const struct pool_keys *keys_of(const struct pool_session *s, const struct pool_hdr *h)
{
	if (pool_keys_verify(&s->keys, h))
		return &s->keys;
	if (s->rekey.old_valid && !pool_rekey_outdated(s, be64_to_cpu(h->seq)) && pool_keys_verify(&s->rekey.old, h))
		return &s->rekey.old;
	return NULL;
}

/* A packet that opened enters the books; numbered: its seq is its own (TRN-04). */
static void commit(struct pool_session *s, u64 seq, bool numbered)
{
	s64 lost;

	if (numbered) {
		window_commit(&s->window, seq, &lost);
		WRITE_ONCE(s->packets_lost, s->packets_lost + lost);
		pool_count_add(packets_lost, lost);
		WRITE_ONCE(s->packets_recv, s->packets_recv + 1);
	}
	pool_count(packets_received);
	s->last_rx_ns = ktime_get_ns();
}

static bool answered_itself(u8 type)
{
	return type == POOL_CONFIG || type == POOL_ROLLBACK;
}

static void acknowledge(struct pool_session *s, u8 type, u16 flags)
{
	/* The answer to a probe is its ack (MTU-01). REQUIRE_ACK means nothing on an ACK; a CLOSE is not answered. */
	bool never = answered_itself(type) || type == POOL_ACK || type == POOL_CLOSE ||
		     (type == POOL_DISCOVER && !(flags & POOL_F_TELEMETRY));

	if (type == POOL_HEARTBEAT)
		pool_owe_ack(s, true);
	else if ((flags & POOL_F_REQUIRE_ACK) && !never)
		pool_owe_ack(s, false);
}

int pool_session_receive(struct pool_session *s, struct pool_hdr *h)
{
	u64 seq = be64_to_cpu(h->seq), ack = be64_to_cpu(h->ack);
	u16 flags = pool_hdr_flags(h);
	u8 type = pool_hdr_type(h);
	u32 len = pool_hdr_payload_len(h);
	/* Only the end of a RESPONSE is sealed; one that comes now is still opened before it is discarded. */
	u32 sealed_from = type == POOL_RESPONSE ? offsetof(struct pool_response, sealed_proof) : 0;
	bool numbered = !s->rel || pool_reliable_numbered(h);
	const struct pool_keys *keys;
	bool old_keys;

	lockdep_assert_held(&s->conn->rx_lock);
	if (pool_hdr_version(h) != POOL_VERSION) {
		pool_count_error(version_mismatch, POOL_CODE_VERSION_MISMATCH, s->conn);
		return POOL_RX_NEXT;
	}
	if (pool_header_malformed(h)) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	if (type == POOL_INIT || type == POOL_CHALLENGE) {
		pool_count(unexpected_type);
		return POOL_RX_NEXT;
	}
	if (memcmp(h->session_id, s->id, POOL_ID_LEN)) {
		pool_count(unknown_session);
		return POOL_RX_NEXT;
	}
	if (payload_malformed(h)) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	keys = keys_of(s, h);
	if (!keys) {
		pool_count_error(auth_fail, POOL_CODE_AUTH_FAIL, s->conn);
		if (s->rel)
			return POOL_RX_NEXT;	/* anybody can send a datagram (SEAL-06) */
		pool_session_end_locked(s, POOL_CODE_AUTH_FAIL, "a packet without a valid hmac");
		return POOL_RX_STOP;
	}
	if (!in_peers_range(s, seq)) {
		pool_count_error(reflected, POOL_CODE_SEQ_INVALID, s->conn);
		return POOL_RX_NEXT;
	}
	if (s->rel) {
		if (numbered ? !pool_reliable_admits(s, h) : pool_reliable_welcomed_again(s, h))
			return POOL_RX_NEXT;
	} else if (!pool_window_fresh(&s->window, seq)) {
		pool_count_error(replay_drops, POOL_CODE_SEQ_INVALID, s->conn);
		return POOL_RX_NEXT;
	}
	if (len) {
		if (!pool_keys_open(keys, h, sealed_from)) {
			pool_count_error(decrypt_fail, POOL_CODE_DECRYPT_FAIL, s->conn);
			if (s->rel)
				return POOL_RX_NEXT;
			pool_session_end_locked(s, POOL_CODE_DECRYPT_FAIL, "a packet without a valid tag");
			return POOL_RX_STOP;
		}
		len -= sealed_from + POOL_TAG_LEN;
	}

	commit(s, seq, numbered);
	/* A CONFIG is decided on before anything acknowledges it (E-44). */
	if (!s->rel && !answered_itself(type))
		WRITE_ONCE(s->rx_ack, s->window.highest);
	old_keys = keys != &s->keys;
	if (!old_keys)
		pool_rekey_verified(s, seq);
	if (pool_rekey_wanted(s))
		pool_part_kick(s, POOL_PART_REKEY);
	if (type != POOL_RESPONSE && !ack_valid(s, ack))	/* whose ack is none (E-11) */
		pool_count(bad_ack);
	else if (s->rel)
		pool_reliable_acked(s, ack);
	if (s->rel) {
		if (!s->ended)
			pool_reliable_arrived(s, h, (const u8 *)(h + 1), len, old_keys, numbered);
		return s->ended ? POOL_RX_STOP : POOL_RX_NEXT;
	}
	acknowledge(s, type, flags);

	pool_session_act(s, h, (const u8 *)(h + 1), len, old_keys);
	WRITE_ONCE(s->rx_ack, s->window.highest);
	return s->ended ? POOL_RX_STOP : POOL_RX_NEXT;
}
