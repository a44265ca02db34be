/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Configuration over a session: what the peer proposes to us, and what we propose to it.
 * The two have nothing to do with each other: a CONFIG is about its receiver's
 * configuration only (E-46). rx_lock guards it.
 */
#ifndef POOL_CONFIGURE_H
#define POOL_CONFIGURE_H

#include "config.h"

struct pool_session;
struct pool_hdr;

enum pool_proposal_stage {
	POOL_PROPOSAL_NONE,
	/* open */
	POOL_PROPOSAL_PROPOSED,
	POOL_PROPOSAL_ACCEPTED,
	POOL_PROPOSAL_CONFIRMING,
	POOL_PROPOSAL_ROLLING_BACK,
	/* how the last one ended */
	POOL_PROPOSAL_CONFIRMED,
	POOL_PROPOSAL_REJECTED,
	POOL_PROPOSAL_ROLLED_BACK,
};

#define POOL_PROPOSAL_SENDS	4

struct pool_configuring {
	struct pool_config_ref peer;		/* the peer's configuration as far as we know */

	/* Our proposal. */
	enum pool_proposal_stage stage;
	struct pool_config_ref base;
	struct pool_wire_config payload;
	u64 seqs[POOL_PROPOSAL_SENDS];		/* of the packets the latest request went out in */
	int sent, sends;			/* so often, of so many */
	u64 first_ns;				/* when it went out first */
	u64 due_ns;				/* when it goes out next */
	u64 give_up_ns;
};

bool pool_may_administer(const struct pool_session *s);
void pool_config_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);
void pool_rollback_receive(struct pool_session *s, const struct pool_hdr *h, u32 len);
void pool_configure_timer(struct pool_session *s, u64 now);
void pool_configure_acked(struct pool_session *s, const struct pool_hdr *h);
void pool_configure_end(struct pool_session *s);

/* What the peer's journal says about its configuration. */
void pool_configure_learn(struct pool_session *s, const struct pool_config_ref *ref);
/* The version proposed, or an error: -EBUSY while another proposal is open. */
int pool_configure_propose(struct pool_session *s, const struct pool_params *params, u64 deadline_ns);
/* -ENOENT: no proposal is open in that way. */
int pool_configure_confirm(struct pool_session *s);
int pool_configure_rollback(struct pool_session *s);
const char *pool_proposal_name(const struct pool_session *s);

#endif
