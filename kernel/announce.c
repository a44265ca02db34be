// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One UDP socket, open while the node listens. It is opened, used and closed by one work
 * item only (announce_work); what arrives is read by another (recv_work), which the first
 * stops before it closes the socket.
 */
#include <linux/igmp.h>
#include <linux/in.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include "announce.h"
#include "compat.h"
#include "conn.h"
#include "counters.h"
#include "faults.h"
#include "journal.h"
#include "keys.h"
#include "params.h"
#include "peers.h"
#include "session.h"

#define GROUP		0xeffd0001	/* 239.253.0.1 */
#define UDP_PORT	9253
#define PERIOD		(30 * HZ)
#define RETRY_MOST	60		/* seconds; the first wait is 1 (S08) */
#define INTERFACES_MOST	32
#define SPACING_NS	(100ULL * NSEC_PER_MSEC)
#define SOURCES		1024
#define READS_PER_WORK	64

static void announce_work_fn(struct work_struct *work);
static void recv_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(announce_work, announce_work_fn);
static DECLARE_WORK(recv_work, recv_work_fn);

static struct socket *udp;
static void (*default_data_ready)(struct sock *sk);
static u16 listen_port;			/* 0: not to announce */
static unsigned long announce_due, opened_at;
static unsigned int retry_sec;

/* Announces accepted within the last 100 ms, the oldest first (DISC-02). recv_work only. */
static struct {
	__be32 ip;
	u64 when_ns;
} heard[SOURCES];
static unsigned int heard_first, heard_count;

static bool admits(__be32 ip)
{
	u64 now = ktime_get_ns();
	unsigned int i;

	while (heard_count && now - heard[heard_first].when_ns >= SPACING_NS) {
		heard_first = (heard_first + 1) % SOURCES;
		heard_count--;
	}
	for (i = 0; i < heard_count; i++)
		if (heard[(heard_first + i) % SOURCES].ip == ip)
			return false;
	if (heard_count == SOURCES)
		return false;
	i = (heard_first + heard_count++) % SOURCES;
	heard[i].ip = ip;
	heard[i].when_ns = now;
	return true;
}

static void receive(const struct pool_wire_announce *a, int len, __be32 source)
{
	struct in6_addr ip;

	if (len != sizeof(*a) || !a->listen_port || !pool_addr_valid(a->address)) {
		pool_count(malformed);
		return;
	}
	if (a->version != POOL_VERSION) {
		pool_count(version_mismatch);
		return;
	}
	if (!memcmp(a->node_pubkey, pool_node_pubkey, POOL_KEY_LEN))
		return;
	if (!admits(source)) {
		pool_count(announce_limited);
		return;
	}
	ipv6_addr_set_v4mapped(source, &ip);
	if (pool_peer_plausible(&ip, be16_to_cpu(a->listen_port)))
		pool_peers_see(&ip, be16_to_cpu(a->listen_port), a->node_pubkey, POOL_SOURCE_ANNOUNCE);
	else
		pool_count(malformed);
}

static void recv_work_fn(struct work_struct *work)
{
	struct sockaddr_in from = {};
	u8 buf[sizeof(struct pool_wire_announce) + 1];
	int i, n;

	for (i = 0; i < READS_PER_WORK; i++) {
		struct msghdr msg = { .msg_name = &from, .msg_flags = MSG_DONTWAIT };
		struct kvec vec = { .iov_base = buf, .iov_len = sizeof(buf) };

		n = kernel_recvmsg(udp, &msg, &vec, 1, sizeof(buf), msg.msg_flags);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			/* What is wrong with it shows when it is used next. */
			mod_delayed_work(pool_wq, &announce_work, 0);
			return;
		}
		receive((void *)buf, n, from.sin_addr.s_addr);
	}
	queue_work(pool_wq, &recv_work);
}

static void udp_data_ready(struct sock *sk)
{
	queue_work(pool_wq, &recv_work);
}

/* Interfaces that can reach others by multicast over IPv4. */
static int interfaces(int *ifindex)
{
	struct net_device *dev;
	int n = 0;

	rtnl_lock();
	for_each_netdev(&init_net, dev) {
		struct in_device *in = __in_dev_get_rtnl(dev);

		if ((dev->flags & (IFF_UP | IFF_MULTICAST | IFF_LOOPBACK)) == (IFF_UP | IFF_MULTICAST) && in &&
		    in->ifa_list && n < INTERFACES_MOST)
			ifindex[n++] = dev->ifindex;
	}
	rtnl_unlock();
	return n;
}

static int set_option(int option, void *value, unsigned int len)
{
	return READ_ONCE(udp->ops)->setsockopt(udp, SOL_IP, option, KERNEL_SOCKPTR(value), len);
}

/* Members of the group on every interface; those where we are one already say so. */
static void join(const int *ifindex, int n)
{
	while (n--) {
		struct ip_mreqn mreq = {
			.imr_multiaddr.s_addr = htonl(GROUP),
			.imr_ifindex = ifindex[n],
		};

		set_option(IP_ADD_MEMBERSHIP, &mreq, sizeof(mreq));
	}
}

static int open_socket(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(UDP_PORT) };
	int one = 1, zero = 0, err;

	if (pool_fault("multicast"))
		return -ENETDOWN;
	err = sock_create_kern(&init_net, AF_INET, SOCK_DGRAM, IPPROTO_UDP, &udp);
	if (err) {
		udp = NULL;
		return err;
	}
	sock_set_reuseaddr(udp->sk);
	err = set_option(IP_MULTICAST_TTL, &one, sizeof(one));		/* N07 */
	if (!err)
		err = set_option(IP_MULTICAST_LOOP, &zero, sizeof(zero));
	/* Without this a socket gets what was sent to groups that somebody else here joined. */
	if (!err)
		err = set_option(IP_MULTICAST_ALL, &zero, sizeof(zero));
	if (!err)
		err = kernel_bind(udp, (pool_sockaddr *)&addr, sizeof(addr));
	if (err) {
		sock_release(udp);
		udp = NULL;
		return err;
	}
	write_lock_bh(&udp->sk->sk_callback_lock);
	default_data_ready = udp->sk->sk_data_ready;
	udp->sk->sk_data_ready = udp_data_ready;
	write_unlock_bh(&udp->sk->sk_callback_lock);
	opened_at = jiffies;
	return 0;
}

static void close_socket(void)
{
	if (!udp)
		return;
	write_lock_bh(&udp->sk->sk_callback_lock);
	udp->sk->sk_data_ready = default_data_ready;
	write_unlock_bh(&udp->sk->sk_callback_lock);
	/* A callback may be past the point of being taken away: let it finish before the work is. */
	synchronize_rcu();
	cancel_work_sync(&recv_work);
	sock_release(udp);
	udp = NULL;
}

static int send_on(int ifindex, struct pool_wire_announce *a)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(UDP_PORT),
		.sin_addr.s_addr = htonl(GROUP),
	};
	union {
		struct cmsghdr header;
		u8 space[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control = {};
	struct msghdr msg = {
		.msg_name = &to,
		.msg_namelen = sizeof(to),
		.msg_control = &control,
		.msg_controllen = sizeof(control.space),
		.msg_flags = MSG_DONTWAIT,
	};
	struct kvec vec = { .iov_base = a, .iov_len = sizeof(*a) };
	int n;

	control.header.cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
	control.header.cmsg_level = IPPROTO_IP;
	control.header.cmsg_type = IP_PKTINFO;
	((struct in_pktinfo *)CMSG_DATA(&control.header))->ipi_ifindex = ifindex;
	n = kernel_sendmsg(udp, &msg, &vec, 1, sizeof(*a));
	return min(n, 0);
}

static int announce(u16 port)
{
	struct pool_wire_announce a = {
		.listen_port = cpu_to_be16(port),
		.version = POOL_VERSION,
		.sessions = cpu_to_be32(pool_table_count()),
		.uptime_s = cpu_to_be32(pool_uptime_sec()),
	};
	int ifindex[INTERFACES_MOST], n = interfaces(ifindex), i, err = 0;

	join(ifindex, n);
	memcpy(a.node_pubkey, pool_node_pubkey, POOL_KEY_LEN);
	pool_addr_make(a.address, pool_node_pubkey);
	if (pool_fault("announce"))
		err = -ENETDOWN;
	for (i = 0; i < n && !err; i++)
		err = send_on(ifindex[i], &a);
	/* An interface that went away meanwhile is no fault of the socket's. */
	return err == -ENODEV ? 0 : err;
}

/* S08: opened anew after a wait that grows. */
static unsigned long failed(const char *what, int err)
{
	bool worked = udp && time_after(jiffies, opened_at + RETRY_MOST * HZ);
	char why[64];

	close_socket();
	retry_sec = worked || !retry_sec ? 1 : min(2 * retry_sec, (unsigned int)RETRY_MOST);
	pool_count(multicast_failures);
	snprintf(why, sizeof(why), "discovery: %s: error %d; again in %u s", what, err, retry_sec);
	pool_journal_error(0, NULL, why);
	net_info_ratelimited("pool: %s\n", why);
	return retry_sec * HZ;
}

static void announce_work_fn(struct work_struct *work)
{
	u16 port = READ_ONCE(listen_port);
	unsigned long delay;
	int err;

	if (!port)
		return;
	err = udp ? sock_error(udp->sk) : open_socket();
	if (err) {
		delay = failed(udp ? "the socket failed" : "the socket cannot be opened", err);
	} else if (time_after_eq(jiffies, announce_due)) {
		err = announce(port);
		if (err) {
			delay = failed("an announce cannot be sent", err);
		} else {
			announce_due = jiffies + PERIOD;
			delay = PERIOD;
		}
	} else {
		delay = announce_due - jiffies;
	}
	queue_delayed_work(pool_wq, &announce_work, pool_timer_step(delay));
}

void pool_announce_start(u16 port)
{
	WRITE_ONCE(listen_port, port);
	announce_due = jiffies;
	retry_sec = 0;
	mod_delayed_work(pool_wq, &announce_work, 0);
	/* Whoever is told that the node listens may count on its hearing others. */
	flush_delayed_work(&announce_work);
}

void pool_announce_stop(void)
{
	WRITE_ONCE(listen_port, 0);
	cancel_delayed_work_sync(&announce_work);
	close_socket();
	/* What arrived last may have asked for it again. */
	cancel_delayed_work_sync(&announce_work);
}
