/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The packet format: WIRE-01..08, sections 1 to 3 and 8. */
#ifndef POOL_WIRE_H
#define POOL_WIRE_H

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>

#define POOL_VERSION		1
#define POOL_KEY_LEN		32
#define POOL_HMAC_LEN		32
#define POOL_TAG_LEN		16
#define POOL_ID_LEN		16
#define POOL_ADDR_LEN		32

struct pool_hdr {
	u8 ver_type;
	u8 reserved0;
	__be16 flags;
	__be64 seq;
	__be64 ack;
	u8 session_id[POOL_ID_LEN];
	__be64 timestamp;
	__be16 payload_len;
	u8 channel;
	u8 reserved1;
	u8 hmac[POOL_HMAC_LEN];
} __packed;

#define POOL_HDR_LEN		sizeof(struct pool_hdr)
#define POOL_HDR_AUTH_LEN	offsetof(struct pool_hdr, hmac)
#define POOL_PAYLOAD_MAX	65535
#define POOL_PACKET_MAX		(POOL_HDR_LEN + POOL_PAYLOAD_MAX)

static_assert(sizeof(struct pool_hdr) == 80);
static_assert(offsetof(struct pool_hdr, session_id) == 20);
static_assert(offsetof(struct pool_hdr, payload_len) == 44);
static_assert(offsetof(struct pool_hdr, hmac) == 48);

enum pool_type {
	POOL_INIT = 0x0,
	POOL_CHALLENGE = 0x1,
	POOL_RESPONSE = 0x2,
	POOL_DATA = 0x3,
	POOL_ACK = 0x4,
	POOL_HEARTBEAT = 0x5,
	POOL_REKEY = 0x6,
	POOL_CLOSE = 0x7,
	POOL_CONFIG = 0x8,
	POOL_ROLLBACK = 0x9,
	POOL_DISCOVER = 0xA,
	POOL_JOURNAL = 0xB,
	POOL_INTEGRITY = 0xC,
	POOL_TYPE_FIRST_UNKNOWN = 0xD,
};

#define POOL_F_ENCRYPTED	0x0001
#define POOL_F_COMPRESSED	0x0002
#define POOL_F_PRIORITY		0x0004
#define POOL_F_FRAGMENT		0x0008
#define POOL_F_LAST_FRAG	0x0010
#define POOL_F_REQUIRE_ACK	0x0020
#define POOL_F_TELEMETRY	0x0040
#define POOL_F_ROLLBACK_READY	0x0080
#define POOL_F_CONFIG_LOCKED	0x0100
#define POOL_F_JOURNAL_SYNC	0x0200
#define POOL_F_RESERVED		0xFC00

enum pool_code {
	POOL_CODE_AUTH_FAIL = 0x01,
	POOL_CODE_DECRYPT_FAIL = 0x02,
	POOL_CODE_SEQ_INVALID = 0x03,
	POOL_CODE_FRAG_TIMEOUT = 0x04,
	POOL_CODE_MTU_EXCEEDED = 0x05,
	POOL_CODE_CONFIG_REJECT = 0x06,
	POOL_CODE_REKEY_FAIL = 0x07,
	POOL_CODE_JOURNAL_FULL = 0x08,
	POOL_CODE_OVERLOAD = 0x09,
	POOL_CODE_VERSION_MISMATCH = 0x0A,
	POOL_CODE_COUNT
};

struct pool_init {
	u8 client_pubkey[POOL_KEY_LEN];
	u8 client_addr[POOL_ADDR_LEN];
} __packed;
static_assert(sizeof(struct pool_init) == 64);

struct pool_challenge {
	u8 server_pubkey[POOL_KEY_LEN];
	u8 puzzle_seed[32];
	__be16 difficulty;
	u8 server_addr[POOL_ADDR_LEN];
} __packed;
static_assert(sizeof(struct pool_challenge) == 98);

struct pool_response {
	u8 client_pubkey[POOL_KEY_LEN];
	u8 solution[32];
	u8 sealed_proof[32 + POOL_TAG_LEN];
} __packed;
static_assert(sizeof(struct pool_response) == 112);

struct pool_wire_addr {
	__be32 type_version;
	__be64 org_id;
	__be64 segment_id;
	__be64 node_id;
	__be32 crc32;
} __packed;
static_assert(sizeof(struct pool_wire_addr) == POOL_ADDR_LEN);

struct pool_wire_telemetry {
	__be64 rtt_ns;
	__be64 jitter_ns;
	__be32 loss_rate_ppm;
	__be32 throughput_bps;
	__be16 mtu;
	__be16 queue_depth;
	__be64 uptime_ns;
	__be32 rekey_count;
	__be32 config_version;
} __packed;
static_assert(sizeof(struct pool_wire_telemetry) == 44);

struct pool_wire_fragment {
	__be32 msg_id;
	__be16 offset;
	__be16 total_len;
} __packed;
static_assert(sizeof(struct pool_wire_fragment) == 8);

struct pool_wire_rekey {
	__be32 epoch;
	u8 stage;
	u8 zero[3];
	u8 pubkey[POOL_KEY_LEN];
} __packed;
static_assert(sizeof(struct pool_wire_rekey) == 40);

struct pool_wire_params {
	u8 difficulty;
	u8 zero;
	__be16 heartbeat_sec;
	__be32 rekey_packets;
	__be32 rekey_sec;
	__be16 mtu_min;
	__be16 mtu_max;
} __packed;
static_assert(sizeof(struct pool_wire_params) == 16);

struct pool_wire_config {
	__be32 version;
	__be32 prev_version;
	u8 config_hash[32];
	u8 prev_hash[32];
	__be64 timestamp;
	__be64 deadline_ns;
	struct pool_wire_params params;
} __packed;
static_assert(sizeof(struct pool_wire_config) == 104);

/* A journal entry; its detail follows. */
struct pool_wire_entry {
	__be64 timestamp;
	__be32 config_before;
	__be32 config_after;
	u8 change_hash[32];
	__be16 change_type;
	__be16 detail_length;
} __packed;
static_assert(sizeof(struct pool_wire_entry) == 52);
#define POOL_DETAIL_MAX		256

/* A JOURNAL packet; entries follow. */
struct pool_wire_sync {
	__be64 first_index;
	u8 previous_hash[32];
	__be16 count;
} __packed;
static_assert(sizeof(struct pool_wire_sync) == 42);

/* One entry of an exchange. */
struct pool_wire_told {
	__be32 ip;
	__be16 port;
	u8 pubkey[POOL_KEY_LEN];
} __packed;
static_assert(sizeof(struct pool_wire_told) == 38);

struct pool_wire_announce {
	u8 node_pubkey[POOL_KEY_LEN];
	u8 address[POOL_ADDR_LEN];
	__be16 listen_port;
	u8 version;
	u8 flags;
	__be32 sessions;
	__be32 uptime_s;
} __packed;
static_assert(sizeof(struct pool_wire_announce) == 76);

struct pool_wire_challenge {
	u8 op;
	u8 random[16];
} __packed;
static_assert(sizeof(struct pool_wire_challenge) == 17);

struct pool_wire_answer {
	u8 op;
	u8 random[16];
	u8 sealed[16 + POOL_TAG_LEN];
	u8 mac[POOL_HMAC_LEN];
} __packed;
static_assert(sizeof(struct pool_wire_answer) == 81);

struct pool_wire_report {
	u8 op;
	__be32 epoch;
	__be64 seq_sent;
	__be64 highest_received;
	__be64 packets_sent;
	__be64 packets_received;
	__be32 config_version;
	u8 journal_head[32];
} __packed;
static_assert(sizeof(struct pool_wire_report) == 73);

#define POOL_MTU_LEAST	512
#define POOL_MTU_MOST	1400
#define POOL_MESSAGE_MAX	65535
/* What a packet of the session's mtu holds: DATA-02. */
#define POOL_DATA_MAX(mtu)	((mtu) - (u32)POOL_HDR_LEN - POOL_TAG_LEN)
#define POOL_FRAGMENT_MAX(mtu)	(POOL_DATA_MAX(mtu) - (u32)sizeof(struct pool_wire_fragment))

/* Sequence ranges: SEQ-01. */
#define POOL_SEQ_START_MASK	((1ULL << 61) - 1)
#define POOL_SEQ_SERVER		(1ULL << 62)
#define POOL_SEQ_CLIENT_END	(1ULL << 62)
#define POOL_SEQ_SERVER_END	(1ULL << 63)

static inline u8 pool_hdr_version(const struct pool_hdr *h)
{
	return h->ver_type >> 4;
}

static inline u8 pool_hdr_type(const struct pool_hdr *h)
{
	return h->ver_type & 0x0f;
}

static inline u16 pool_hdr_flags(const struct pool_hdr *h)
{
	return be16_to_cpu(h->flags);
}

static inline u16 pool_hdr_payload_len(const struct pool_hdr *h)
{
	return be16_to_cpu(h->payload_len);
}

/* Before keys exist a packet has no flags, no seq and no hmac (SEQ-03, section 1). */
static inline bool pool_hdr_plain(const struct pool_hdr *h)
{
	return !h->flags && !h->seq && !memchr_inv(h->hmac, 0, POOL_HMAC_LEN);
}

#endif
