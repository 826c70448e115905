/*
 * packet.h - the little Ethernet, ARP, IPv4 and ICMP that the examples need.
 *
 * Every field is made of bytes: the structs have neither padding nor
 * alignment and may lie anywhere in a frame. The read_ functions trust
 * nothing: they succeed only if every byte that they return was received.
 */
#ifndef PACKET_H
#define PACKET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TYPE_IPV4 = 0x0800, TYPE_ARP = 0x0806, PROTOCOL_ICMP = 1 };
enum { ARP_REQUEST = 1, ARP_REPLY = 2, ECHO_REPLY = 0, ECHO_REQUEST = 8 };

struct ethernet_header {
    uint8_t destination[6], source[6], type[2];
};

struct arp_frame {
    struct ethernet_header ethernet;
    uint8_t hardware_type[2], protocol_type[2], hardware_len, protocol_len, operation[2];
    uint8_t sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
};

struct ipv4_header {
    uint8_t version_and_words, service, total_len[2], identifier[2], fragment[2];
    uint8_t ttl, protocol, checksum[2], source[4], destination[4];
};

struct icmp_header {
    uint8_t type, code, checksum[2], identifier[2], sequence[2];
};

/* Where an ICMP message starts in a frame that we send: we send no IPv4 options. */
enum { ICMP_OFFSET = sizeof(struct ethernet_header) + sizeof(struct ipv4_header) };

/* An ICMP message inside a received frame; `len` counts its header and its data. */
struct icmp_message {
    const struct ipv4_header *ip;
    const struct icmp_header *icmp;
    size_t len;
};

static inline unsigned get16(const uint8_t field[2])
{
    return (unsigned)field[0] << 8 | field[1];
}

static inline void put16(uint8_t field[2], unsigned value)
{
    field[0] = (uint8_t)(value >> 8);
    field[1] = (uint8_t)value;
}

/* The Internet checksum (RFC 1071); 0 for bytes that contain a correct checksum. */
static inline unsigned checksum(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint32_t sum = 0;
    size_t i;

    for (i = 0; i + 1 < len; i += 2)
        sum += get16(at + i);
    if (i < len)
        sum += (uint32_t)at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static inline void write_ethernet(struct ethernet_header *out, const uint8_t destination[6],
                                  const uint8_t source[6], unsigned type)
{
    memcpy(out->destination, destination, 6);
    memcpy(out->source, source, 6);
    put16(out->type, type);
}

/* A request is broadcast: its target_mac is the broadcast address. */
static inline void write_arp(struct arp_frame *out, unsigned operation, const uint8_t mac[6],
                             const uint8_t ip[4], const uint8_t target_mac[6],
                             const uint8_t target_ip[4])
{
    write_ethernet(&out->ethernet, target_mac, mac, TYPE_ARP);
    put16(out->hardware_type, 1);
    put16(out->protocol_type, TYPE_IPV4);
    out->hardware_len = 6;
    out->protocol_len = 4;
    put16(out->operation, operation);
    memcpy(out->sender_mac, mac, 6);
    memcpy(out->sender_ip, ip, 4);
    memcpy(out->target_mac, target_mac, 6);
    memcpy(out->target_ip, target_ip, 4);
}

/* The frame as an ARP request or reply for IPv4 over Ethernet, or NULL if it is neither. */
static inline const struct arp_frame *read_arp(const uint8_t *frame, size_t len,
                                               unsigned operation)
{
    const struct arp_frame *arp = (const struct arp_frame *)frame;

    if (len < sizeof *arp || get16(arp->ethernet.type) != TYPE_ARP ||
        get16(arp->hardware_type) != 1 || get16(arp->protocol_type) != TYPE_IPV4 ||
        arp->hardware_len != 6 || arp->protocol_len != 4 || get16(arp->operation) != operation)
        return NULL;
    return arp;
}

/* If the frame asks who has `ip`, writes the answer `mac` and returns its length, else 0. */
static inline size_t answer_arp(uint8_t *out, const uint8_t *frame, size_t len,
                                const uint8_t mac[6], const uint8_t ip[4])
{
    const struct arp_frame *request = read_arp(frame, len, ARP_REQUEST);

    if (request == NULL || memcmp(request->target_ip, ip, 4) != 0)
        return 0;
    write_arp((struct arp_frame *)out, ARP_REPLY, mac, ip, request->sender_mac,
              request->sender_ip);
    return sizeof *request;
}

/*
 * Puts the headers before an ICMP message of `len` bytes that lies at
 * ICMP_OFFSET, and fills in the checksums. Returns the frame's length.
 */
static inline size_t write_icmp(uint8_t *frame, size_t len, const uint8_t mac[6],
                                const uint8_t ip[4], const uint8_t target_mac[6],
                                const uint8_t target_ip[4])
{
    struct ipv4_header *header = (struct ipv4_header *)(frame + sizeof(struct ethernet_header));
    struct icmp_header *icmp = (struct icmp_header *)(frame + ICMP_OFFSET);

    write_ethernet((struct ethernet_header *)frame, target_mac, mac, TYPE_IPV4);
    memset(header, 0, sizeof *header);
    header->version_and_words = 0x45;
    put16(header->total_len, (unsigned)(sizeof *header + len));
    header->ttl = 64;
    header->protocol = PROTOCOL_ICMP;
    memcpy(header->source, ip, 4);
    memcpy(header->destination, target_ip, 4);
    put16(header->checksum, checksum(header, sizeof *header));
    put16(icmp->checksum, 0);
    put16(icmp->checksum, checksum(icmp, len));
    return ICMP_OFFSET + len;
}

/* Finds a whole, intact ICMP message to `mac` and `ip`. Returns 1, or 0 if there is none. */
static inline int read_icmp(const uint8_t *frame, size_t len, const uint8_t mac[6],
                            const uint8_t ip[4], struct icmp_message *out)
{
    const struct ethernet_header *ethernet = (const struct ethernet_header *)frame;
    const struct ipv4_header *header = (const struct ipv4_header *)(ethernet + 1);
    size_t header_len, total_len;

    if (len < ICMP_OFFSET || get16(ethernet->type) != TYPE_IPV4 ||
        memcmp(ethernet->destination, mac, 6) != 0)
        return 0;
    header_len = (header->version_and_words & 15u) * 4;
    total_len = get16(header->total_len);
    if (header->version_and_words >> 4 != 4 || header_len < sizeof *header ||
        total_len < header_len + sizeof(struct icmp_header) ||
        total_len > len - sizeof *ethernet || checksum(header, header_len) != 0)
        return 0;
    if (header->protocol != PROTOCOL_ICMP || memcmp(header->destination, ip, 4) != 0 ||
        (get16(header->fragment) & 0x3fff) != 0)
        return 0;
    out->ip = header;
    out->icmp = (const struct icmp_header *)((const uint8_t *)header + header_len);
    out->len = total_len - header_len;
    return checksum(out->icmp, out->len) == 0;
}

/*
 * If the frame pings `ip` at `mac`, writes the answer and returns its length,
 * else 0. The answer is never longer than the frame.
 */
static inline size_t answer_echo(uint8_t *out, const uint8_t *frame, size_t len,
                                 const uint8_t mac[6], const uint8_t ip[4])
{
    struct icmp_message request;

    if (!read_icmp(frame, len, mac, ip, &request) || request.icmp->type != ECHO_REQUEST ||
        request.icmp->code != 0)
        return 0;
    memcpy(out + ICMP_OFFSET, request.icmp, request.len);
    out[ICMP_OFFSET + offsetof(struct icmp_header, type)] = ECHO_REPLY;
    return write_icmp(out, request.len, mac, ip, frame + offsetof(struct ethernet_header, source),
                      request.ip->source);
}

/* Whether the message is the reply of `ip` to that request. */
static inline int is_echo_reply(const struct icmp_message *reply, const uint8_t ip[4],
                                const struct icmp_header *request)
{
    return reply->icmp->type == ECHO_REPLY && reply->icmp->code == 0 &&
           memcmp(reply->ip->source, ip, 4) == 0 &&
           get16(reply->icmp->identifier) == get16(request->identifier) &&
           get16(reply->icmp->sequence) == get16(request->sequence);
}

#endif
