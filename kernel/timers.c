// SPDX-License-Identifier: GPL-2.0-or-later
#include "conn.h"
#include "session.h"

#define ACK_DELAY_MS	20	/* SEQ-05 allows 50 */
#define ACK_MERGE	16

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

void pool_reap_work(struct work_struct *work)
{
	struct pool_session *s = container_of(to_delayed_work(work), struct pool_session, reap_work);

	pool_session_remove(s);
	pool_session_put(s);
}
