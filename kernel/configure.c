// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/ktime.h>
#include "configure.h"
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "params.h"
#include "session.h"

#define RETRY_NS	(20ULL * NSEC_PER_MSEC)
#define LATE_NS		(10ULL * NSEC_PER_SEC)	/* how long after a deadline word of it is waited for */

static const u8 confirm_repeat_sec[POOL_PROPOSAL_SENDS] = { 0, 1, 2, 4 };	/* CFG-03, after the first */

/* AUTH-02: may the peer change our configuration and read our journal? */
bool pool_may_administer(const struct pool_session *s)
{
	return pool_remote_admin;
}

static bool is_open(const struct pool_configuring *c)
{
	return c->stage >= POOL_PROPOSAL_PROPOSED && c->stage <= POOL_PROPOSAL_ROLLING_BACK;
}

static void follow(struct pool_session *s)
{
	struct pool_configuring *c = &s->configuring;
	u64 due = pool_config_deadline(s);

	if (is_open(c)) {
		due = min(due, c->give_up_ns);
		if (c->sent < c->sends)
			due = min(due, c->due_ns);
	}
	pool_part_set(s, POOL_PART_CONFIG, due);
}

/* ours */

static void refuse(struct pool_session *s, const struct pool_hdr *h, const char *why)
{
	pool_count(config_reject);
	pool_journal_error(POOL_CODE_CONFIG_REJECT, s->conn, why);
	pool_send_exact_ack(s, be64_to_cpu(h->seq), 0);
}

static bool refuse_stranger(struct pool_session *s, const struct pool_hdr *h)
{
	if (pool_may_administer(s))
		return false;
	pool_count(not_permitted);
	refuse(s, h, "remote_admin is off");
	return true;
}

void pool_config_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	const struct pool_wire_config *w = (const void *)plaintext;
	const char *wrong;

	if (refuse_stranger(s, h))
		return;
	if (len != sizeof(*w))
		wrong = "size";
	else if (pool_hdr_flags(h) & POOL_F_CONFIG_LOCKED)
		wrong = pool_config_confirm(s, w);
	else
		wrong = pool_config_propose(s, w);
	if (wrong)
		refuse(s, h, wrong);
	else
		pool_send_exact_ack(s, be64_to_cpu(h->seq), POOL_F_CONFIG_LOCKED);
	follow(s);
}

void pool_rollback_receive(struct pool_session *s, const struct pool_hdr *h, u32 len)
{
	const char *wrong;

	if (refuse_stranger(s, h))
		return;
	wrong = len ? "size" : pool_config_rollback(s);
	if (wrong)
		refuse(s, h, wrong);
	else
		pool_send_exact_ack(s, be64_to_cpu(h->seq), POOL_F_ROLLBACK_READY);
	follow(s);
}

/* the peer's */

void pool_configure_learn(struct pool_session *s, const struct pool_config_ref *ref)
{
	s->configuring.peer = *ref;
}

/* Send the request if it can go out at once: its seq has to be known. */
static void send_request(struct pool_session *s, u64 now)
{
	struct pool_configuring *c = &s->configuring;
	bool rollback = c->stage == POOL_PROPOSAL_ROLLING_BACK;
	u16 flags = c->stage == POOL_PROPOSAL_CONFIRMING ? POOL_F_CONFIG_LOCKED : 0;
	bool gone = false;
	u64 seq;

	mutex_lock(&s->conn->tx_lock);
	if (pool_send_flows(s)) {
		seq = s->tx_next;
		gone = !pool_send_control_locked(s, rollback ? POOL_ROLLBACK : POOL_CONFIG, flags, POOL_MARK_NONE,
						 &c->payload, rollback ? 0 : sizeof(c->payload));
	}
	mutex_unlock(&s->conn->tx_lock);
	if (!gone) {
		c->due_ns = now + RETRY_NS;
		return;
	}
	if (!c->sent)
		c->first_ns = now;
	c->seqs[c->sent++] = seq;
	if (c->sent < c->sends)
		c->due_ns = c->first_ns + confirm_repeat_sec[c->sent] * NSEC_PER_SEC;
}

static void begin(struct pool_session *s, enum pool_proposal_stage stage, int sends)
{
	struct pool_configuring *c = &s->configuring;
	u64 now = ktime_get_ns();

	c->stage = stage;
	c->sent = 0;
	c->sends = sends;
	send_request(s, now);
}

int pool_configure_propose(struct pool_session *s, const struct pool_params *params, u64 deadline_ns)
{
	struct pool_configuring *c = &s->configuring;

	lockdep_assert_held(&s->conn->rx_lock);
	if (is_open(c))
		return -EBUSY;
	if (c->peer.version == INT_MAX)
		return -EOVERFLOW;
	c->base = c->peer;
	c->payload.version = cpu_to_be32(c->base.version + 1);
	c->payload.prev_version = cpu_to_be32(c->base.version);
	pool_params_pack(&c->payload.params, params);
	pool_config_hash(c->payload.config_hash, c->payload.version, &c->payload.params);
	memcpy(c->payload.prev_hash, c->base.hash, sizeof(c->base.hash));
	c->payload.timestamp = cpu_to_be64(ktime_get_real_ns());
	c->payload.deadline_ns = cpu_to_be64(deadline_ns);
	c->give_up_ns = ktime_get_ns() + deadline_ns;
	begin(s, POOL_PROPOSAL_PROPOSED, 1);
	follow(s);
	return c->base.version + 1;
}

static void extend(struct pool_configuring *c)
{
	c->give_up_ns = max(c->give_up_ns,
			    ktime_get_ns() + confirm_repeat_sec[POOL_PROPOSAL_SENDS - 1] * NSEC_PER_SEC + LATE_NS);
}

int pool_configure_confirm(struct pool_session *s)
{
	struct pool_configuring *c = &s->configuring;

	lockdep_assert_held(&s->conn->rx_lock);
	if (c->stage != POOL_PROPOSAL_ACCEPTED)
		return -ENOENT;
	extend(c);
	begin(s, POOL_PROPOSAL_CONFIRMING, POOL_PROPOSAL_SENDS);
	follow(s);
	return 0;
}

int pool_configure_rollback(struct pool_session *s)
{
	struct pool_configuring *c = &s->configuring;

	lockdep_assert_held(&s->conn->rx_lock);
	if (c->stage != POOL_PROPOSAL_PROPOSED && c->stage != POOL_PROPOSAL_ACCEPTED)
		return -ENOENT;
	extend(c);
	begin(s, POOL_PROPOSAL_ROLLING_BACK, 1);
	follow(s);
	return 0;
}

static void rolled_back(struct pool_configuring *c)
{
	c->peer = c->base;
	c->stage = POOL_PROPOSAL_ROLLED_BACK;
}

static bool answers(const struct pool_configuring *c, u64 ack)
{
	int i;

	for (i = 0; i < c->sent; i++)
		if (c->seqs[i] == ack)
			return true;
	return false;
}

static void locked(struct pool_configuring *c)
{
	if (c->stage == POOL_PROPOSAL_PROPOSED) {
		c->stage = POOL_PROPOSAL_ACCEPTED;
		c->give_up_ns += LATE_NS;
		c->peer.version = be32_to_cpu(c->payload.version);
		memcpy(c->peer.hash, c->payload.config_hash, sizeof(c->peer.hash));
	} else if (c->stage == POOL_PROPOSAL_CONFIRMING) {
		c->stage = POOL_PROPOSAL_CONFIRMED;
	}
}

/* An answer has exactly the request's seq as its ack (E-44). */
void pool_configure_acked(struct pool_session *s, const struct pool_hdr *h)
{
	struct pool_configuring *c = &s->configuring;
	u16 flags = pool_hdr_flags(h);

	if (!is_open(c))
		return;
	if ((flags & POOL_F_ROLLBACK_READY) && c->stage != POOL_PROPOSAL_PROPOSED) {
		rolled_back(c);
	} else if (answers(c, be64_to_cpu(h->ack))) {
		if (flags & POOL_F_CONFIG_LOCKED)
			locked(c);
		else if (flags & POOL_F_ROLLBACK_READY)
			return;
		else if (c->stage == POOL_PROPOSAL_PROPOSED)
			c->stage = POOL_PROPOSAL_REJECTED;
		else if (c->stage != POOL_PROPOSAL_ACCEPTED)
			rolled_back(c);		/* nothing was tentative any more */
	} else {
		return;
	}
	follow(s);
}

static void unanswered(struct pool_configuring *c)
{
	if (c->stage == POOL_PROPOSAL_PROPOSED || c->stage == POOL_PROPOSAL_CONFIRMING)
		c->stage = POOL_PROPOSAL_REJECTED;
	else
		rolled_back(c);
}

void pool_configure_timer(struct pool_session *s, u64 now)
{
	struct pool_configuring *c = &s->configuring;

	pool_config_expire();
	if (is_open(c)) {
		if (now >= c->give_up_ns)
			unanswered(c);
		else if (c->sent < c->sends && now >= c->due_ns)
			send_request(s, now);
	}
	follow(s);
}

void pool_configure_end(struct pool_session *s)
{
	pool_config_session_ended(s);
	if (is_open(&s->configuring))
		unanswered(&s->configuring);
}

const char *pool_proposal_name(const struct pool_session *s)
{
	static const char *const names[] = {
		[POOL_PROPOSAL_NONE] = "none", [POOL_PROPOSAL_PROPOSED] = "proposed",
		[POOL_PROPOSAL_ACCEPTED] = "accepted", [POOL_PROPOSAL_CONFIRMING] = "confirming",
		[POOL_PROPOSAL_ROLLING_BACK] = "rolling-back", [POOL_PROPOSAL_CONFIRMED] = "confirmed",
		[POOL_PROPOSAL_REJECTED] = "rejected", [POOL_PROPOSAL_ROLLED_BACK] = "rolled-back",
	};

	return names[READ_ONCE(s->configuring.stage)];
}
