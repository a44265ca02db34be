// SPDX-License-Identifier: GPL-2.0-or-later
/* The raw IP socket: datagrams in and out. */
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <net/ip.h>
#include <net/net_namespace.h>
#include <net/route.h>
#include <net/sock.h>
#include "compat.h"
#include "counters.h"
#include "raw.h"

#define DATAGRAM_MAX		65535
#define RECEIVE_BUFFER		(4 << 20)
#define SEND_BUFFER		(8 << 20)
#define READS_PER_WORK		64

static struct socket *raw_sock;
static u8 *rx_buffer;
static void (*default_data_ready)(struct sock *sk);

static DEFINE_MUTEX(send_lock);		/* innermost; the socket's DF setting */
static bool df_set;

static void read_work_fn(struct work_struct *work);
static DECLARE_WORK(read_work, read_work_fn);

int pool_raw_transmit(__be32 from, __be32 to, const void *packet, u32 len, bool dont_fragment)
{
	u8 control[CMSG_SPACE(sizeof(struct in_pktinfo))] __aligned(sizeof(long)) = {};
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = to };
	struct msghdr msg = {
		.msg_name = &sin,
		.msg_namelen = sizeof(sin),
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL,
	};
	struct kvec vec = { .iov_base = (void *)packet, .iov_len = len };
	struct cmsghdr *cmsg = (void *)control;
	struct in_pktinfo *info = CMSG_DATA(cmsg);
	int n;

	if (from) {
		cmsg->cmsg_len = CMSG_LEN(sizeof(*info));
		cmsg->cmsg_level = SOL_IP;
		cmsg->cmsg_type = IP_PKTINFO;
		info->ipi_spec_dst.s_addr = from;
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
	}
	mutex_lock(&send_lock);
	if (df_set != dont_fragment) {
		/* Whatever is known of the path: finding out what it takes is the protocol's own business. */
		ip_sock_set_mtu_discover(raw_sock->sk, dont_fragment ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT);
		df_set = dont_fragment;
	}
	n = kernel_sendmsg(raw_sock, &msg, &vec, 1, len);
	mutex_unlock(&send_lock);
	if (n >= 0)
		return 0;
	pool_count(send_failures);
	return n;
}

static void receive(const u8 *data, u32 len)
{
	const struct iphdr *ip = (const void *)data;
	const struct pool_hdr *h;
	struct pool_datagram *d;
	u32 ip_len;

	if (len < sizeof(*ip))
		return;
	/* Nobody is spoken to by broadcast or multicast: the answers would be many. */
	if (inet_addr_type(&init_net, ip->daddr) != RTN_LOCAL) {
		pool_count(malformed);
		return;
	}
	ip_len = ip->ihl * 4;
	h = (const void *)(data + ip_len);
	if (len < ip_len + POOL_HDR_LEN || len != ip_len + POOL_HDR_LEN + pool_hdr_payload_len(h)) {
		pool_count(malformed);
		return;
	}
	d = kvmalloc(struct_size(d, data, len - ip_len), GFP_KERNEL);
	if (!d) {
		pool_count(no_memory);
		return;
	}
	d->from = ip->saddr;
	d->to = ip->daddr;
	d->len = len - ip_len;
	memcpy(d->data, h, d->len);
	pool_raw_sort(d);
}

static void read_work_fn(struct work_struct *work)
{
	int reads, n;

	for (reads = 0; reads < READS_PER_WORK; reads++) {
		struct msghdr msg = { .msg_flags = MSG_DONTWAIT };
		struct kvec vec = { .iov_base = rx_buffer, .iov_len = DATAGRAM_MAX };

		n = kernel_recvmsg(raw_sock, &msg, &vec, 1, DATAGRAM_MAX, MSG_DONTWAIT);
		if (n == -EAGAIN)
			return;
		if (n > 0)
			receive(rx_buffer, n);
		cond_resched();
	}
	queue_work(pool_wq, &read_work);
}

bool pool_raw_available(void)
{
	return raw_sock;
}

static void raw_data_ready(struct sock *sk)
{
	queue_work(pool_wq, &read_work);
}

int pool_raw_start(void)
{
	struct sock *sk;
	int err;

	rx_buffer = kvmalloc(DATAGRAM_MAX, GFP_KERNEL);
	if (!rx_buffer)
		return -ENOMEM;
	err = sock_create_kern(&init_net, AF_INET, SOCK_RAW, POOL_RAW_PROTOCOL, &raw_sock);
	if (err) {
		raw_sock = NULL;
		kvfree(rx_buffer);
		return err;
	}
	sk = raw_sock->sk;
	sock_set_rcvbuf(sk, RECEIVE_BUFFER / 2);	/* it doubles */
	lock_sock(sk);
	WRITE_ONCE(sk->sk_sndbuf, SEND_BUFFER);
	release_sock(sk);
	write_lock_bh(&sk->sk_callback_lock);
	default_data_ready = sk->sk_data_ready;
	sk->sk_data_ready = raw_data_ready;
	write_unlock_bh(&sk->sk_callback_lock);
	queue_work(pool_wq, &read_work);
	return 0;
}

void pool_raw_stop(void)
{
	if (!raw_sock)
		return;
	write_lock_bh(&raw_sock->sk->sk_callback_lock);
	raw_sock->sk->sk_data_ready = default_data_ready;
	write_unlock_bh(&raw_sock->sk->sk_callback_lock);
	/* A callback may be past the point of being taken away: let it finish before the work is. */
	synchronize_rcu();
	cancel_work_sync(&read_work);
	sock_release(raw_sock);
	raw_sock = NULL;
	kvfree(rx_buffer);
}
