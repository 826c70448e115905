//! A hub: frames from hostile peers go where a learning switch sends them, and nowhere else.
//!
//! An input is a list of operations on a few ports: see [`Bench::operate`].

#![no_main]

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, c_int};
use std::os::fd::OwnedFd;
use std::{ptr, thread};

use libfuzzer_sys::fuzz_target;
use qnet::capi::handles::{qnet_conn, qnet_hub};
use qnet::capi::{end, hub, ports, receive, send};
use qnet_fuzz::{
    AGAIN, CLOSED, FRAME_MAX, FRAME_MIN, FRAME_SIZE, HANDLE, Input, OK, PROTOCOL, Received, decode,
    pair, push_frame, receive_all, received, send_all, wait,
};

const PORTS: usize = 8;

/// The default of QNET_OPT_MAX_FRAME: hubs drop longer ones.
const LONGEST: usize = 65_535;

const MAC_AGE_S: c_int = 20;
const MAC_MAX: c_int = 21;
const MAC_MAX_DEFAULT: usize = 8192;

/// The most frames and bytes that are sent at a time, which fit into every socket's buffer.
const FRAMES: usize = 48;
const BYTES: usize = 80 << 10;

const LENGTHS: [usize; 16] = [
    18,
    14,
    15,
    60,
    64,
    100,
    128,
    1514,
    9000,
    16_379,
    16_380,
    16_381,
    40_000,
    LONGEST,
    LONGEST + 1,
    FRAME_MAX,
];

type Mac = [u8; 6];

/// The VLANs that ports may have: none, and texts with what they say.
const SPECS: [(&CStr, Spec); 7] = [
    (c"", Spec { kind: Kind::None, list: &[], own: Some(0), tpid: 0x8100 }),
    (c"access 1", Spec { kind: Kind::Access, list: &[], own: Some(1), tpid: 0x8100 }),
    (c"access 2 tpid 88a8", Spec { kind: Kind::Access, list: &[], own: Some(2), tpid: 0x88a8 }),
    (c"trunk 1,2", Spec { kind: Kind::Trunk, list: &[1, 2], own: None, tpid: 0x8100 }),
    (c"trunk 1 native 2", Spec { kind: Kind::Trunk, list: &[1], own: Some(2), tpid: 0x8100 }),
    (
        c"trunk 2 native 1 tpid 88a8",
        Spec { kind: Kind::Trunk, list: &[2], own: Some(1), tpid: 0x88a8 },
    ),
    (c"tunnel 1", Spec { kind: Kind::Tunnel, list: &[], own: Some(1), tpid: 0x8100 }),
];

#[derive(PartialEq)]
enum Kind {
    None,
    Access,
    Trunk,
    Tunnel,
}

struct Spec {
    kind: Kind,
    list: &'static [u16],
    /// The VLAN of what has no tag.
    own: Option<u16>,
    tpid: u16,
}

/// What frames may have in front of their type.
const TAGS: [&[u16]; 10] = [
    &[],
    &[0x8100, 1],
    &[0x8100, 0xa002],
    &[0x8100, 0xe000],
    &[0x8100, 4095],
    &[0x88a8, 1],
    &[0x88a8, 0x3002],
    &[0x8100, 1, 0x8100, 2],
    &[0x88a8, 2, 0x8100, 1],
    &[0x8100, 0, 0x88a8, 2],
];

fn word_at(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

impl Spec {
    fn carries(&self, vlan: u16) -> bool {
        self.kind == Kind::None || self.own == Some(vlan) || self.list.contains(&vlan)
    }

    /// The VLAN of a frame that comes in, and the size of what says so.
    fn enter(&self, frame: &[u8]) -> Option<(u16, usize)> {
        if self.kind == Kind::Tunnel || word_at(frame, 12) != Some(self.tpid) {
            return Some((self.own?, 0));
        }
        word_at(frame, 16)?;
        let vlan = match word_at(frame, 14)? & 0xfff {
            0 => self.own?,
            4095 => return None,
            _ if self.kind == Kind::Access => return None,
            vlan => vlan,
        };
        self.carries(vlan).then_some((vlan, 4))
    }

    /// A frame as it goes out.
    fn leave<'a>(&self, frame: &'a [u8], vlan: u16, tag: usize) -> Option<Cow<'a, [u8]>> {
        if !self.carries(vlan) {
            return None;
        }
        let (addresses, rest) = (&frame[..12], &frame[12 + tag..]);
        if self.own != Some(vlan) {
            let priority = if tag > 0 { word_at(frame, 14)? & 0xf000 } else { 0 };
            let tag = [self.tpid.to_be_bytes(), (priority | vlan).to_be_bytes()].concat();
            return Some([addresses, &tag, rest].concat().into());
        }
        match self.kind {
            Kind::None => Some(frame.into()),
            Kind::Tunnel => Some([addresses, rest].concat().into()),
            _ if word_at(rest, 0) == Some(self.tpid) => None,
            _ => Some([addresses, rest].concat().into()),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bench = Bench::new();
    let mut input = Input(data);
    while bench.operate(&mut input).is_some() {}
    bench.close();
});

/// A hub, its ports, and a model of what a switch knows.
struct Bench {
    hub: *mut qnet_hub,
    ports: [Option<Port>; PORTS],
    model: Model,
    /// Differs in each frame, to tell frames apart.
    tag: usize,
}

struct Port {
    /// The connection that is attached. If the port is a device's, this is the hub's own end.
    conn: *mut qnet_conn,
    end: End,
    is_attached: bool,
    /// The bytes to be sent, and those that were sent and that the hub has not used yet.
    outbox: Vec<u8>,
    sent: Vec<u8>,
    /// How many frames the hub has used, runts included.
    used: usize,
    /// Its VLANs.
    spec: usize,
}

/// What is at the other end of a port.
enum End {
    Peer(OwnedFd),
    /// A connection of qnet_hub_port().
    Device(*mut qnet_conn),
}

/// The model of a learning switch.
#[derive(Default)]
struct Model {
    stations: HashMap<(Mac, u16), usize>,
    /// The VLANs of each port that is attached.
    specs: [Option<usize>; PORTS],
    max: usize,
    /// Whether the hub may have forgotten a station.
    is_forgetful: bool,
    counts: Counts,
}

/// The counts of qnet_hub_get_stats().
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    forwarded: u64,
    flooded: u64,
    dropped: u64,
    received: u64,
    refused_vlan: u64,
}

/// The frames that each port may receive, and whether each of them has to come.
type Due<'a> = [Vec<(Cow<'a, [u8]>, bool)>; PORTS];

impl Model {
    fn forget(&mut self, port: usize) {
        self.stations.retain(|_, at| *at != port);
    }

    fn has_vlans(&self) -> bool {
        self.specs.iter().flatten().any(|spec| *spec > 0)
    }

    /// A port has other VLANs, or is there no more. The first port that has any and the last have all
    /// forgotten.
    fn set_spec(&mut self, port: usize, spec: Option<usize>) {
        let had_vlans = self.has_vlans();
        self.specs[port] = spec;
        if self.has_vlans() != had_vlans {
            self.stations.clear();
        }
    }

    fn spec(&self, port: usize) -> &'static Spec {
        &SPECS[self.specs[port].unwrap_or(0)].1
    }

    /// Sends a frame that came in at `from` to those of `others` who are to have it.
    fn forward<'a>(&mut self, from: usize, frame: &'a [u8], others: &[usize], due: &mut Due<'a>) {
        self.counts.received += 1;
        let has_vlans = self.has_vlans();
        let entered = if has_vlans { self.spec(from).enter(frame) } else { Some((0, 0)) };
        let Some((vlan, tag)) = entered else {
            self.counts.refused_vlan += 1;
            return;
        };
        let (destination, source) = (mac_at(frame, 0), mac_at(frame, 6));
        if !is_group(source) {
            self.stations.insert((source, vlan), from);
            self.is_forgetful |= self.stations.len() > self.max;
        }
        let station = self.stations.get(&(destination, vlan)).copied();
        let place = station.filter(|_| !is_group(destination));
        match place {
            None => self.counts.flooded += 1,
            Some(port) if port == from => self.counts.dropped += 1,
            Some(_) => {}
        }
        for port in others {
            let left = match has_vlans {
                true => self.spec(*port).leave(frame, vlan, tag),
                false => Some(frame.into()),
            };
            let must = place.is_none_or(|place| place == *port);
            let is_lost = left.as_ref().is_some_and(|left| left.len() > LONGEST);
            if must {
                self.counts.dropped += u64::from(is_lost);
                let is_single = place.is_some();
                self.counts.refused_vlan += u64::from(is_single && left.is_none());
                self.counts.forwarded += u64::from(is_single && left.is_some() && !is_lost);
            }
            if let Some(left) = left.filter(|_| !is_lost && (must || self.is_forgetful)) {
                due[*port].push((left, must));
            }
        }
    }
}

fn mac_at(frame: &[u8], at: usize) -> Mac {
    frame[at..at + 6].try_into().expect("6 bytes")
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// A station's, a group's or the broadcast address for a byte.
fn mac_of(byte: u8) -> Mac {
    match byte {
        0xff => [0xff; 6],
        0xf0.. => [1, 0, 0x5e, 0, 0, byte],
        _ => [2, 0, 0, 0, 0, byte],
    }
}

impl Bench {
    fn new() -> Bench {
        let mut hub = ptr::null_mut();
        // SAFETY: `hub` may be written to.
        assert_eq!(unsafe { hub::qnet_hub_new(&mut hub) }, OK);
        let model = Model { max: MAC_MAX_DEFAULT, ..Model::default() };
        Bench { hub, ports: Default::default(), model, tag: 0 }
    }

    /// Does the next operation of the input.
    fn operate(&mut self, input: &mut Input) -> Option<()> {
        let (operation, n) = input.operation()?;
        let (at, n) = (n % PORTS, n / PORTS);
        match (operation, self.ports[at].as_mut()) {
            (0, None) => {
                let port = if n == 0 { self.device() } else { peer() };
                self.model.set_spec(at, port.is_attached.then_some(port.spec));
                self.ports[at] = Some(port);
            }
            (0, Some(_)) => self.plug_or_unplug(at),
            (1, Some(_)) => self.leave(at),
            (2, Some(_)) if n == 3 => self.set_vlan(at, usize::from(input.byte()?) % SPECS.len()),
            (2, _) => self.configure(n, input.byte()?),
            (3, Some(port)) => {
                let tags = match self.model.has_vlans() {
                    true => TAGS[usize::from(input.byte()?) % TAGS.len()],
                    false => &[],
                };
                port.push_frames(input, n, tags, &mut self.tag);
            }
            // A runt.
            (4, Some(port)) => push_frame(&mut port.outbox, &[], n * 4 + 1, 0),
            (5, Some(port)) => port.outbox.extend_from_slice(input.bytes(8 * n + 1)),
            (6, Some(_)) => self.send(at, usize::MAX),
            (7, Some(_)) if n == 0 => self.pull(at),
            (7, Some(_)) => self.send(at, input.byte()?.into()),
            _ => {}
        }
        if self.ports[at].as_ref().is_some_and(Port::is_full) {
            self.send(at, usize::MAX);
        }
        self.check_counts();
        Some(())
    }

    /// The program's own device, which is attached from the start.
    fn device(&mut self) -> Port {
        let mut made = ptr::null_mut();
        let mut attached = [ptr::null_mut(); PORTS];
        // SAFETY: all places may be written to.
        unsafe {
            assert_eq!(hub::qnet_hub_port(self.hub, &mut made), OK);
            assert!(hub::qnet_hub_ports(self.hub, attached.as_mut_ptr(), PORTS) > 0);
        }
        let is_new =
            |conn: &*mut qnet_conn| !conn.is_null() && self.open().all(|port| port.conn != *conn);
        let conn = attached.into_iter().find(is_new).expect("the device is attached");
        Port { is_attached: true, ..Port::new(conn, End::Device(made)) }
    }

    fn open(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten()
    }

    fn plug_or_unplug(&mut self, at: usize) {
        let port = self.ports[at].as_mut().expect("a port");
        match port.end {
            End::Device(_) => {}
            End::Peer(_) if port.is_attached => {
                port.is_attached = false;
                // SAFETY: the library checks handles itself.
                assert_eq!(unsafe { hub::qnet_hub_detach(self.hub, port.conn) }, OK);
                self.model.forget(at);
                self.model.set_spec(at, None);
            }
            End::Peer(_) => {
                port.is_attached = true;
                // SAFETY: the library checks handles itself.
                assert_eq!(unsafe { hub::qnet_hub_attach(self.hub, port.conn) }, OK);
                self.model.set_spec(at, Some(port.spec));
                self.settle(at);
            }
        }
    }

    fn set_vlan(&mut self, at: usize, spec: usize) {
        let port = self.ports[at].as_mut().expect("a port");
        let is_needed = spec > 0 || port.spec > 0;
        port.spec = spec;
        // SAFETY: the library checks handles itself, and the text is a string.
        assert_eq!(unsafe { ports::qnet_set_vlan(port.conn, SPECS[spec].0.as_ptr()) }, OK);
        if port.is_attached && is_needed {
            self.model.forget(at);
            self.model.set_spec(at, Some(spec));
        }
    }

    fn configure(&mut self, what: usize, value: u8) {
        let (option, value) = match what {
            0 => (MAC_AGE_S, 1 + usize::from(value)),
            _ => (MAC_MAX, 1 + usize::from(value % 32)),
        };
        // SAFETY: the library checks handles itself.
        assert_eq!(unsafe { hub::qnet_hub_set(self.hub, option, value as i64) }, OK);
        match option {
            // Nothing in this program takes a minute, so longer ages forget nothing.
            MAC_AGE_S => self.model.is_forgetful |= value < 60,
            _ => {
                self.model.max = value;
                self.model.is_forgetful |= self.model.stations.len() > value;
            }
        }
    }

    /// Sends a port's outbox, or the first `most` bytes of it.
    fn send(&mut self, at: usize, most: usize) {
        let port = self.ports[at].as_mut().expect("a port");
        port.send(most);
        if port.is_attached {
            self.settle(at);
        }
    }

    /// Waits until the hub has used what was sent at a port, and checks what every other port receives.
    fn settle(&mut self, at: usize) {
        let others: Vec<usize> = (0..PORTS)
            .filter(|other| *other != at)
            .filter(|other| self.ports[*other].as_ref().is_some_and(|port| port.is_attached))
            .collect();
        let port = self.ports[at].as_mut().expect("a port");
        let stream = std::mem::take(&mut port.sent);
        let decoded = decode(&stream);
        let mut due = Due::default();
        for frame in decoded.frames.iter().filter(|frame| frame.len() >= FRAME_MIN) {
            self.model.forward(at, frame, &others, &mut due);
        }
        port.sent = decoded.rest.to_vec();
        port.used += decoded.frames.len();
        port.wait_until_used();
        if decoded.is_broken {
            assert_eq!(wait(port.conn), OK);
        }
        for (port, due) in self.ports.iter().zip(&due) {
            if let Some(port) = port {
                port.check(due);
            }
        }
        if decoded.is_broken {
            self.leave(at);
        }
    }

    /// Receives a frame from a port's connection, if that is not attached.
    fn pull(&mut self, at: usize) {
        let port = self.ports[at].as_mut().expect("a port");
        if port.is_attached {
            return;
        }
        let mut room = vec![0; FRAME_MAX];
        // SAFETY: `room` is valid for its length.
        let got = unsafe { receive::qnet_recv(port.conn, room.as_mut_ptr().cast(), room.len(), 0) };
        let stream = std::mem::take(&mut port.sent);
        let decoded = decode(&stream);
        let next = decoded.frames.iter().position(|frame| frame.len() >= FRAME_MIN);
        let used = &decoded.frames[..next.map_or(decoded.frames.len(), |next| next + 1)];
        port.used += used.len();
        port.sent = stream[used.iter().map(|frame| 4 + frame.len()).sum()..].to_vec();
        match next {
            Some(next) => {
                assert!(room.get(..got as usize) == Some(decoded.frames[next]), "another frame");
            }
            None if decoded.is_broken => {
                assert_eq!(got, PROTOCOL);
                self.leave(at);
            }
            None => assert_eq!(got, AGAIN),
        }
    }

    /// Has the other end of a port leave.
    fn leave(&mut self, at: usize) {
        let Port { conn, end, is_attached, sent, .. } = self.ports[at].take().expect("a port");
        // SAFETY: the library checks handles itself.
        unsafe {
            match end {
                End::Peer(peer) => {
                    drop(peer);
                    if is_attached {
                        assert_eq!(wait(conn), OK);
                        assert_eq!(end::qnet_close_reason(conn), decode(&sent).end());
                    }
                    assert_eq!(end::qnet_close(conn), OK);
                }
                End::Device(device) => {
                    assert_eq!(end::qnet_close(device), OK);
                    // The hub closes its own end soon after.
                    while wait(conn) != HANDLE {
                        thread::yield_now();
                    }
                }
            }
        }
        self.model.forget(at);
        self.model.set_spec(at, None);
    }

    fn check_counts(&self) {
        let mut told = [0u64; 14];
        let size = size_of_val(&told);
        // SAFETY: the struct consists of these counts.
        let known = unsafe { hub::qnet_hub_get_stats(self.hub, told.as_mut_ptr().cast(), size) };
        assert_eq!(known as usize, size);
        let [ports, macs, forwarded, flooded, dropped, received, refused_vlan, others @ ..] = told;
        assert_eq!(ports as usize, self.open().filter(|port| port.is_attached).count());
        if self.model.is_forgetful {
            assert!(macs as usize <= self.model.max);
        } else {
            assert_eq!(macs as usize, self.model.stations.len());
            let moves = others[6];
            assert_eq!(others.iter().sum::<u64>(), moves, "refused, or mirrored");
            let told = Counts { forwarded, flooded, dropped, received, refused_vlan };
            assert_eq!(told, self.model.counts);
        }
    }

    /// Closes the hub, before its ports or after them.
    fn close(mut self) {
        if self.tag % 2 == 1 {
            let open: Vec<_> = (0..PORTS).filter(|at| self.ports[*at].is_some()).collect();
            open.into_iter().for_each(|at| self.leave(at));
            self.check_counts();
        }
        // SAFETY: the library checks handles itself.
        unsafe {
            assert_eq!(hub::qnet_hub_close(self.hub), OK);
            assert_eq!(hub::qnet_hub_close(self.hub), HANDLE);
            for port in self.ports.into_iter().flatten() {
                let conn = match port.end {
                    End::Peer(_) => port.conn,
                    End::Device(device) => {
                        assert_eq!(wait(device), OK);
                        assert_eq!(end::qnet_close_reason(device), CLOSED);
                        device
                    }
                };
                drop(port.end);
                assert_eq!(end::qnet_close(conn), OK);
            }
        }
    }
}

fn peer() -> Port {
    let (conn, peer) = pair();
    Port::new(conn, End::Peer(peer))
}

impl Port {
    fn new(conn: *mut qnet_conn, end: End) -> Port {
        let (outbox, sent) = (Vec::new(), Vec::new());
        Port { conn, end, is_attached: false, outbox, sent, used: 0, spec: 0 }
    }

    /// Puts frames of one source and length in the outbox, to one destination or to several in turn.
    fn push_frames(&mut self, input: &mut Input, step: usize, tags: &[u16], tag: &mut usize) {
        let [source, destination, kind] = [(); 3].map(|()| input.byte().unwrap_or(0));
        for i in 0..=kind >> 4 {
            if self.is_full() {
                break;
            }
            *tag += 1;
            let to = mac_of(destination.wrapping_add(i * step as u8));
            let tags: Vec<u8> = tags.iter().flat_map(|word| word.to_be_bytes()).collect();
            let header =
                [&to[..], &mac_of(source), &tags, &[8, 0], &tag.to_be_bytes()[4..]].concat();
            push_frame(&mut self.outbox, &header, LENGTHS[usize::from(kind % 16)], *tag);
        }
    }

    fn is_full(&self) -> bool {
        self.outbox.len() > BYTES || decode(&self.outbox).frames.len() >= FRAMES
    }

    fn send(&mut self, most: usize) {
        match &self.end {
            End::Device(device) => {
                for frame in decode(&self.outbox).frames {
                    let fits = (FRAME_MIN..=LONGEST).contains(&frame.len());
                    // SAFETY: `frame` is valid for its length.
                    let code =
                        unsafe { send::qnet_send(*device, frame.as_ptr().cast(), frame.len()) };
                    assert_eq!(code, if fits { OK } else { FRAME_SIZE });
                    if fits {
                        push_frame(&mut self.sent, frame, frame.len(), 0);
                    }
                }
                self.outbox.clear();
            }
            End::Peer(peer) => {
                let bytes = &self.outbox[..most.min(self.outbox.len())];
                // Nobody reads until the port is attached.
                if self.is_attached || self.sent.len() < 1024 {
                    send_all(peer, bytes);
                    self.sent.extend_from_slice(bytes);
                }
                self.outbox.drain(..bytes.len());
            }
        }
    }

    /// Waits until the hub has forwarded all frames that came from here.
    fn wait_until_used(&self) {
        loop {
            let Received { frames, runts, .. } = received(self.conn);
            assert!(frames + runts <= self.used, "frames that were not sent");
            if frames + runts == self.used {
                return;
            }
            thread::yield_now();
        }
    }

    /// Checks that the other end has received the frames that were due, in order.
    fn check(&self, due: &[(Cow<'_, [u8]>, bool)]) {
        let bytes = self.receive();
        let come = decode(&bytes);
        assert!(come.rest.is_empty(), "a part of a frame");
        // The possible numbers of received frames that the due ones so far account for.
        let mut counts = BTreeSet::from([0]);
        for (frame, must) in due {
            let is_it = |count: &&usize| come.frames.get(**count).copied() == Some(&**frame);
            let more: Vec<_> = counts.iter().filter(is_it).map(|count| count + 1).collect();
            if *must {
                counts.clear();
            }
            counts.extend(more);
        }
        assert!(counts.contains(&come.frames.len()), "not the frames that were due");
    }

    fn receive(&self) -> Vec<u8> {
        match &self.end {
            End::Peer(peer) => receive_all(peer),
            End::Device(device) => {
                let (mut all, mut room) = (Vec::new(), vec![0; 4 + FRAME_MAX]);
                loop {
                    let at = room.as_mut_ptr().cast();
                    // SAFETY: `room` is valid for its length.
                    let got = unsafe { receive::qnet_recv_packed(*device, at, room.len(), 0) };
                    match usize::try_from(got) {
                        Ok(got) => all.extend_from_slice(&room[..got]),
                        Err(_) => assert_eq!(got, AGAIN),
                    }
                    if got < 0 {
                        return all;
                    }
                }
            }
        }
    }
}
