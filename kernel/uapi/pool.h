/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * The ioctls of /dev/pool. Host byte order; an IP address is always 16 bytes,
 * IPv4 as ::ffff:a.b.c.d. Reserved fields and flags must be zero.
 */
#ifndef _UAPI_POOL_H
#define _UAPI_POOL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define POOL_IOC_MAGIC 'P'

struct pool_connect_req {
	__u8 peer_addr[16];
	__u16 peer_port;
	__u8 addr_family;	/* AF_INET or AF_INET6 */
	__u8 pool_version;	/* 0: the module's own */
	__u8 reserved[4];
};

struct pool_data_req {
	__u32 session_idx;
	__u8 channel;		/* receive: 0 takes any; the message's own on return */
	__u8 flags;
	__u16 reserved;
	__u32 len;		/* bytes at data_ptr; the message's length on return */
	__u32 pad;
	__aligned_u64 data_ptr;
};

struct pool_telemetry {
	__u64 rtt_ns;
	__u64 jitter_ns;
	__u32 loss_rate_ppm;
	__u32 throughput_bps;
	__u16 mtu;
	__u16 queue_depth;
	__u64 uptime_ns;
	__u32 rekey_count;
	__u32 config_version;
} __attribute__((packed));

struct pool_session_info {
	__u32 index;
	__u8 peer_addr[16];
	__u16 peer_port;
	__u8 addr_family;
	__u8 state;		/* 0 idle 1 init-sent 2 challenged 3 established 4 rekeying 5 closing */
	__u8 session_id[16];
	__aligned_u64 bytes_sent;	/* bytes of messages, not of packets */
	__aligned_u64 bytes_recv;
	__aligned_u64 packets_sent;
	__aligned_u64 packets_recv;
	__u32 rekey_count;
	struct pool_telemetry telemetry;
};

struct pool_session_list {
	__u32 count;		/* out: entries written */
	__u32 max_sessions;
	__aligned_u64 info_ptr;
};

#define POOL_CHANNEL_SUBSCRIBE		1
#define POOL_CHANNEL_UNSUBSCRIBE	2
#define POOL_CHANNEL_LIST		3

struct pool_channel_req {
	__u32 session_idx;
	__u8 channel;
	__u8 operation;
	__u16 reserved;
	__u32 result;		/* subscribed channels after the operation */
	__u32 pad;
	__aligned_u64 data_ptr;	/* list: 32 bytes, bit c of byte c/8 is channel c */
};

/* What a session does by itself, done now; this project's extension. */
#define POOL_CONTROL_REKEY	1
#define POOL_CONTROL_PROPOSE	2	/* data: struct pool_proposal; result: the version proposed */
#define POOL_CONTROL_CONFIRM	3
#define POOL_CONTROL_ROLLBACK	4
#define POOL_CONTROL_JOURNAL	5
#define POOL_CONTROL_EXCHANGE	6
#define POOL_CONTROL_CHALLENGE	7
#define POOL_CONTROL_PROBE	8

struct pool_proposal {
	__u8 difficulty;
	__u8 zero;
	__u16 heartbeat_sec;
	__u32 rekey_packets;
	__u32 rekey_sec;
	__u16 mtu_min;
	__u16 mtu_max;
	__aligned_u64 deadline_ns;	/* the peer goes back to what it had unless confirmed so soon */
};

struct pool_control_req {
	__u32 session_idx;
	__u8 op;
	__u8 reserved[3];
	__u32 len;		/* bytes at data_ptr */
	__s32 result;		/* out */
	__aligned_u64 data_ptr;
};

#define POOL_IOC_LISTEN		_IOW(POOL_IOC_MAGIC, 1, __u16)
#define POOL_IOC_CONNECT	_IOW(POOL_IOC_MAGIC, 2, struct pool_connect_req)
#define POOL_IOC_SEND		_IOW(POOL_IOC_MAGIC, 3, struct pool_data_req)
#define POOL_IOC_RECV		_IOWR(POOL_IOC_MAGIC, 4, struct pool_data_req)
#define POOL_IOC_SESSIONS	_IOWR(POOL_IOC_MAGIC, 5, struct pool_session_list)
#define POOL_IOC_CLOSE_SESS	_IOW(POOL_IOC_MAGIC, 6, __u32)
#define POOL_IOC_STOP		_IO(POOL_IOC_MAGIC, 7)
#define POOL_IOC_CHANNEL	_IOWR(POOL_IOC_MAGIC, 8, struct pool_channel_req)
#define POOL_IOC_CONTROL	_IOWR(POOL_IOC_MAGIC, 32, struct pool_control_req)

#endif
