//! Forwarding in a hub that has rules, of its own or of a port: each frame is judged, and may be refused,
//! mirrored, and leave with another tag than it came with. A hub without rules has no part in this.

use crate::frame::Alike;
use crate::switch::forwarding::Course;
use crate::switch::outlet::Outlet;
use crate::switch::recent::{Addresses, Recent};
use crate::switch::rules::{BROADCAST, COMING, GOING, HubRules, MULTICAST, Rules, UNKNOWN};
use crate::switch::ruling::{Mark, Refused, Ruling};
use crate::switch::sorter::{Piece, Sorter};
use crate::switch::table::{Entry, Learned, Mac, Table};
use crate::switch::vlan::{Change, Head, Inner, Vlan};
use crate::switch::{Inside, Kind};

/// The first five bytes of the groups that a switch of the standard keeps to itself, and how many there are.
const RESERVED: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];
const RESERVED_GROUPS: u8 = 16;

impl Inside {
    /// The same as `sort`, in a hub with rules.
    pub fn sort_ruled(
        &mut self,
        alike: &Alike<'_>,
        course: &mut Course,
        mut piece: Piece,
        bytes: &[u8],
        sorter: &mut Sorter,
    ) -> Piece {
        let mut count = 0;
        for frame in alike.frames() {
            let Some(addresses) = Addresses::of(frame) else {
                continue;
            };
            let head = if self.has_vlans { Head::of(frame) } else { Head::UNTAGGED };
            let mark = Mark { addresses, head };
            if mark != course.ruled.mark {
                let ruling = match sorter.rulings.find(mark) {
                    Some(ruling) => ruling,
                    None => self.rule(course, mark, &mut sorter.rulings),
                };
                course.ruled.mark = mark;
                if ruling != course.ruled.ruling {
                    piece.add(alike.len, count);
                    count = 0;
                    let end = piece.end;
                    self.dispatch(course, piece, bytes, sorter);
                    (course.ruled.ruling, piece) = (ruling, Piece::at(end));
                }
            }
            count += 1;
        }
        piece.add(alike.len, count);
        piece
    }

    /// Judges a frame, and learns where its source is. The ruling is kept for the frames that follow.
    #[inline(never)]
    fn rule(&mut self, course: &Course, mark: Mark, kept: &mut Recent<Mark, Ruling>) -> Ruling {
        let (from, now) = (course.from, course.now.unwrap_or(0));
        let ruling = match self.admit(from, mark, now) {
            Ok((inner, learned)) => {
                if learned != Learned::Nothing {
                    kept.clear();
                }
                self.counts.moves += u64::from(learned == Learned::Moved);
                let destination = mark.addresses.destination();
                self.rule_on_way(from, destination, inner, now).unwrap_or_else(Ruling::Refused)
            }
            Err(refused) => Ruling::Refused(refused),
        };
        kept.keep(mark, ruling);
        ruling
    }

    /// Judges whether a frame comes in. Returns what it is inside, and what has been learned from it.
    fn admit(&mut self, from: usize, mark: Mark, now: u64) -> Result<(Inner, Learned), Refused> {
        let Inside { ports, kind, has_vlans, rules: hub, .. } = self;
        let Kind::Hub { table, .. } = kind else {
            return Ok((Inner::PLAIN, Learned::Nothing));
        };
        let rules = ports[from].rules.as_deref();
        if rules.is_some_and(|rules| rules.is_mirror) {
            return Err(Refused::Isolated);
        }
        let inner = match has_vlans {
            false => Inner::PLAIN,
            true => vlan_at(&ports[from]).enter(mark.head).ok_or(Refused::Vlan)?,
        };
        let [start @ .., last] = mark.addresses.destination().bytes();
        if start == RESERVED && last < RESERVED_GROUPS && hub.groups >> last & 1 == 0 {
            return Err(Refused::Group);
        }
        let source = mark.addresses.source().in_vlan(inner.vlan);
        let before = table.entry(source, now);
        let elsewhere = before.filter(|entry| entry.port != from);
        let is_secure = |port: usize| ports[port].rules.as_ref().is_some_and(|it| it.is_secure);
        let is_held = |entry: &Entry| !entry.is_static() && entry.quiet_for(now) < hub.move_time;
        if elsewhere.is_some_and(|entry| is_secure(entry.port)) {
            return Err(Refused::Secure);
        }
        let may_learn = !source.is_group()
            && match before {
                Some(entry) if entry.port == from => true,
                Some(entry) => !entry.is_static() && has_room(table, from, rules, now),
                None => {
                    let stays = |entry: &Entry| is_secure(entry.port) || is_held(entry);
                    has_room(table, from, rules, now) && table.has_place_for(source, now, stays)
                }
            };
        if !may_learn && is_secure(from) {
            return Err(Refused::Secure);
        }
        if elsewhere.as_ref().is_some_and(is_held) {
            return Err(Refused::Move);
        }
        let learned = if may_learn { table.learn(source, from, now) } else { Learned::Nothing };
        Ok((inner, learned))
    }

    /// Judges where a frame goes that has come in.
    fn rule_on_way(
        &self,
        from: usize,
        destination: Mac,
        inner: Inner,
        now: u64,
    ) -> Result<Ruling, Refused> {
        let Kind::Hub { table, .. } = &self.kind else {
            return Ok(Ruling::Back);
        };
        if destination.is_group() {
            let is_broadcast = destination == Mac::EVERYBODY;
            return Ok(Ruling::Flood(inner, if is_broadcast { BROADCAST } else { MULTICAST }));
        }
        let Some(port) = table.find(destination.in_vlan(inner.vlan), now) else {
            return Ok(Ruling::Flood(inner, UNKNOWN));
        };
        let to = &self.ports[port];
        if port == from {
            return Ok(Ruling::Back);
        }
        if are_isolated(&self.ports[from], to) || to.is_mirror() {
            return Err(Refused::Isolated);
        }
        let change = self.leave_at(to, inner).ok_or(Refused::Vlan)?;
        Ok(Ruling::To(port, change))
    }

    /// What becomes of a frame where it goes out, if it may.
    fn leave_at(&self, outlet: &Outlet, inner: Inner) -> Option<Change> {
        if self.has_vlans { vlan_at(outlet).leave(inner) } else { Some(Change::None) }
    }

    /// The same as `dispatch`, in a hub with rules.
    pub fn dispatch_ruled(
        &mut self,
        course: &Course,
        piece: Piece,
        bytes: &[u8],
        sorter: &mut Sorter,
    ) {
        let (from, now) = (course.from, course.now.unwrap_or(0));
        if self.mirrors_of(from, COMING) {
            self.mirror(Some(from), piece, sorter);
        }
        match course.ruled.ruling {
            Ruling::Refused(reason) => self.count_refused(from, reason, piece.frames),
            Ruling::Back => self.counts.dropped += piece.frames as u64,
            Ruling::To(port, change) => {
                let piece = Piece { change, ..piece };
                sorter.add(port, &mut self.ports[port].pieces, piece);
                if self.mirrors_of(port, GOING) {
                    self.mirror(None, piece, sorter);
                }
            }
            Ruling::Flood(inner, class) => {
                let storm = self.ports[from].rules.as_mut().map(|rules| &mut rules.storm);
                let passing = storm.map_or(piece.frames, |storm| storm.take(now, piece.frames));
                let piece = match passing < piece.frames {
                    true => {
                        self.count_refused(from, Refused::Storm, piece.frames - passing);
                        piece.first(passing, bytes)
                    }
                    false => piece,
                };
                if piece.frames > 0 {
                    self.send_sorted(bytes, sorter);
                    self.flood_ruled(from, piece, (inner, class), bytes, sorter);
                }
            }
        }
    }

    fn count_refused(&mut self, from: usize, reason: Refused, frames: usize) {
        self.counts.refused[reason as usize] += frames as u64;
        self.ports[from].rx_counts.refused.add(frames as u64);
    }

    /// Whether mirrors get copies of what comes in at a port, or goes out there.
    fn mirrors_of(&self, id: usize, what: u8) -> bool {
        let mirrored = || self.ports[id].rules.as_ref().map_or(COMING, |rules| rules.mirrored);
        !self.mirrors.is_empty() && mirrored() & what != 0 && !self.ports[id].is_pulled()
    }

    /// Puts copies on the lists of all mirrors, but of the one that the frames came from.
    fn mirror(&mut self, but: Option<usize>, piece: Piece, sorter: &mut Sorter) {
        for id in self.mirrors.iter().copied().filter(|id| Some(*id) != but) {
            sorter.add(id, &mut self.ports[id].pieces, piece);
            self.counts.mirrored += piece.frames as u64;
        }
    }

    /// Sends frames to every port that takes them.
    fn flood_ruled(
        &mut self,
        from: usize,
        piece: Piece,
        (inner, class): (Inner, u8),
        bytes: &[u8],
        sorter: &mut Sorter,
    ) {
        let limit = self.limit();
        for id in 0..self.ports.capacity() {
            let Some(outlet) = self.ports.get(id).filter(|_| id != from) else {
                continue;
            };
            let takes = outlet.rules.as_ref().is_none_or(|rules| rules.flood & class != 0);
            if !takes || outlet.is_mirror() || are_isolated(&self.ports[from], outlet) {
                continue;
            }
            let Some(change) = self.leave_at(outlet, inner) else {
                continue;
            };
            let piece = Piece { change, ..piece };
            let mut out = sorter.sending.way_out(self.runner, limit, &mut self.number);
            let pieces = [piece].into_iter();
            let changed = &mut sorter.changed;
            let dropped = self.ports[id].send_changed(&mut out, bytes, pieces, changed);
            self.counts.dropped += dropped as u64;
            if self.mirrors_of(id, GOING) {
                self.mirror(None, piece, sorter);
            }
        }
        self.counts.flooded += piece.frames as u64;
    }

    /// Puts what is set for a port in force.
    pub fn set_rules(&mut self, id: usize, mut rules: Option<Box<Rules>>) {
        let before = self.ports[id].rules.take();
        let is_mirror = |rules: &Option<Box<Rules>>| rules.as_ref().is_some_and(|it| it.is_mirror);
        let forgets = is_mirror(&rules) && !is_mirror(&before);
        if let (Some(rules), Some(before)) = (&mut rules, &before) {
            rules.storm.go_on_from(&before.storm);
        }
        self.ports[id].rules = rules;
        if forgets {
            self.forget(id);
        }
        self.follow_rules();
    }

    /// Forgets what is known behind a port, static entries too.
    pub fn forget(&mut self, id: usize) {
        if let Kind::Hub { table, .. } = &mut self.kind {
            table.forget(id);
        }
    }

    /// Forgets devices that were not heard for too long. Returns what time it is by the table.
    pub fn forget_old(&mut self) -> u64 {
        let now = self.runner.now();
        let Kind::Hub { table, .. } = &mut self.kind else {
            return 0;
        };
        let now = table.time(now);
        table.len(now);
        now
    }

    /// What is known of each device, and the port that it is behind.
    pub fn entries(&self) -> impl Iterator<Item = (Mac, &Entry, &Outlet)> {
        let table = if let Kind::Hub { table, .. } = &self.kind { Some(table) } else { None };
        let entries = table.into_iter().flat_map(Table::entries);
        entries.map(|(mac, entry)| (mac, entry, &self.ports[entry.port]))
    }

    /// Has a device be at a port until that is gone. Returns whether the table has room for it.
    pub fn fix(&mut self, mac: Mac, id: usize) -> bool {
        match &mut self.kind {
            Kind::Hub { table, .. } => table.fix(mac, id),
            Kind::Link { .. } => false,
        }
    }

    /// Has a hub follow rules.
    pub fn set_hub_rules(&mut self, rules: HubRules) {
        self.rules = rules;
        self.follow_rules();
    }

    /// Finds out what there is to follow, after a change of that.
    pub fn follow_rules(&mut self) {
        let Kind::Hub { table, .. } = &mut self.kind else {
            return;
        };
        let rules = || self.ports.iter().filter_map(|(_, outlet)| outlet.rules.as_ref());
        let has_vlans = rules().any(|rules| rules.vlan.is_some());
        if has_vlans != self.has_vlans {
            table.forget_learned();
        }
        self.is_ruled = self.rules != HubRules::NONE || rules().next().is_some();
        self.has_vlans = has_vlans;
        let mirrors = self.ports.iter().filter(|(_, outlet)| outlet.is_mirror());
        self.mirrors = mirrors.map(|(id, _)| id).collect();
    }
}

fn vlan_at(outlet: &Outlet) -> &Vlan {
    Vlan::or_transparent(outlet.rules.as_ref().and_then(|rules| rules.vlan.as_deref()))
}

fn are_isolated(one: &Outlet, other: &Outlet) -> bool {
    let is_isolated = |it: &Outlet| it.rules.as_ref().is_some_and(|rules| rules.is_isolated);
    is_isolated(one) && is_isolated(other)
}

fn has_room(table: &mut Table, port: usize, rules: Option<&Rules>, now: u64) -> bool {
    table.has_room_at(port, rules.map_or(0, |rules| rules.limit), now)
}
