//! Frames with headers, for programs and marks.

/// A frame of that type behind some tags, each of its kind and VLAN.
pub fn ethernet(tags: &[(u16, u16)], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
    for (tag, vlan) in tags {
        frame.extend([tag.to_be_bytes(), vlan.to_be_bytes()].concat());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An IPv4 packet with a right checksum.
pub fn ipv4(tos: u8, ttl: u8, protocol: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let len = 20 + payload.len() as u16;
    let mut packet = vec![0x45, tos];
    packet.extend([len, id, 0].map(u16::to_be_bytes).concat());
    packet.extend([ttl, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = sum(&packet);
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet.extend(payload);
    packet
}

/// The ones' complement sum of a header: all ones where its checksum is right.
pub fn sum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

pub fn ipv6(class: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60 | class >> 4, class << 4, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.resize(40, 1);
    packet.extend(payload);
    packet
}

/// The ports of UDP or TCP, and what follows up to TCP's flags.
pub fn ports(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut header = [from.to_be_bytes(), to.to_be_bytes()].concat();
    header.resize(20, 0);
    header[13] = flags;
    header
}
