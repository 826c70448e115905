//! Forwarding: each frame goes to the port where its destination is, to all others, or nowhere.

use std::time::Instant;

use crate::frame::{self, Alike, Run, Walk};
use crate::switch::recent::{Addresses, Recent, Way};
use crate::switch::ruling::Ruled;
use crate::switch::sorter::{List, Piece, Sorter};
use crate::switch::table::Learned;
use crate::switch::{Inside, Kind};

/// Where frames come in, and where the last of them went.
pub struct Course {
    pub from: usize,
    /// The learning table's time; `None` where there is none.
    pub now: Option<u64>,
    addresses: Addresses,
    way: Way,
    /// The same where there are rules.
    pub ruled: Ruled,
}

impl Inside {
    /// Begins to forward what came in at port `from`.
    pub fn course(&self, from: usize, sorter: &mut Sorter, now: Instant) -> Course {
        sorter.recent.clear();
        sorter.rulings.clear();
        let now =
            if let Kind::Hub { table, .. } = &self.kind { Some(table.time(now)) } else { None };
        // What a link takes in is sent together too, whatever was lost between.
        let way = self.other_side(from).map_or(Way::Others, Way::To);
        let (addresses, ruled) = (Addresses::OF_GROUPS, Ruled::NOTHING);
        Course { from, now, addresses, way, ruled }
    }

    /// Sends on the whole frames at the front of `bytes`, which came in at port `from`. Returns what they
    /// were.
    pub fn forward(&mut self, from: usize, bytes: &[u8], sorter: &mut Sorter, now: Instant) -> Run {
        let mut course = self.course(from, sorter, now);
        let (mut total, mut piece) = (Run::default(), Piece::at(0));
        let mut walk = Walk::over(bytes);
        while let Some(alike) = walk.next_alike(usize::MAX) {
            if alike.len < frame::MIN {
                self.dispatch(&course, piece, bytes, sorter);
                piece = Piece::at(bytes.len() - walk.rest().len());
                total.runts += alike.count;
                continue;
            }
            total.frames += alike.count;
            total.bytes += alike.count * alike.len;
            piece = self.pass(&alike, &mut course, piece, bytes, sorter);
        }
        self.dispatch(&course, piece, bytes, sorter);
        self.send_sorted(bytes, sorter);
        total.end = bytes.len() - walk.rest().len();
        total
    }

    /// Takes what goes with the frames before some others, and returns what goes with those, too, of which
    /// some may be sent on their way.
    #[inline]
    pub fn pass(
        &mut self,
        alike: &Alike<'_>,
        course: &mut Course,
        mut piece: Piece,
        bytes: &[u8],
        sorter: &mut Sorter,
    ) -> Piece {
        self.counts.received += alike.count as u64;
        match course.now {
            Some(_) if self.is_ruled => self.sort_ruled(alike, course, piece, bytes, sorter),
            Some(now) => self.sort(alike, course, now, piece, bytes, sorter),
            None => {
                piece.add(alike.len, alike.count);
                piece
            }
        }
    }

    /// Finds where each of some frames goes, and dispatches those that do not go the same way as the last.
    /// Takes what goes with the frames before these, and returns what may go with those behind.
    fn sort(
        &mut self,
        alike: &Alike<'_>,
        course: &mut Course,
        now: u64,
        mut piece: Piece,
        bytes: &[u8],
        sorter: &mut Sorter,
    ) -> Piece {
        let mut count = 0;
        for frame in alike.frames() {
            let addresses = Addresses::of(frame);
            if let Some(addresses) = addresses.filter(|other| *other != course.addresses) {
                let way = match sorter.recent.find(addresses) {
                    Some(way) => way,
                    None => self.way_of(course.from, now, addresses, &mut sorter.recent),
                };
                course.addresses = addresses;
                if way != course.way {
                    piece.add(alike.len, count);
                    count = 0;
                    let end = piece.end;
                    self.dispatch(course, piece, bytes, sorter);
                    (course.way, piece) = (way, Piece::at(end));
                }
            }
            count += 1;
        }
        piece.add(alike.len, count);
        piece
    }

    /// Learns where the source of a frame is, and finds where the frame goes. That is kept for the frames
    /// that follow.
    fn way_of(
        &mut self,
        from: usize,
        now: u64,
        addresses: Addresses,
        recent: &mut Recent<Addresses, Way>,
    ) -> Way {
        let Kind::Hub { table, .. } = &mut self.kind else {
            return Way::Others;
        };
        let learned = table.learn(addresses.source(), from, now);
        if learned != Learned::Nothing {
            recent.clear();
        }
        self.counts.moves += u64::from(learned == Learned::Moved);
        let way = match table.find(addresses.destination(), now) {
            Some(port) if port == from => Way::Back,
            Some(port) => Way::To(port),
            None => Way::Others,
        };
        recent.keep(addresses, way);
        way
    }

    /// Puts frames for one port on its list. Frames for many are sent at once, behind all that was sorted
    /// before.
    pub fn dispatch(&mut self, course: &Course, piece: Piece, bytes: &[u8], sorter: &mut Sorter) {
        if piece.frames == 0 {
            return;
        }
        if self.is_ruled {
            return self.dispatch_ruled(course, piece, bytes, sorter);
        }
        match course.way {
            Way::Back => self.counts.dropped += piece.frames as u64,
            Way::To(port) => sorter.add(port, &mut self.ports[port].pieces, piece),
            Way::Others => {
                self.send_sorted(bytes, sorter);
                self.flood(course.from, piece, bytes, sorter);
            }
        }
    }

    /// Sends frames to every port but the one that they came from.
    fn flood(&mut self, from: usize, piece: Piece, bytes: &[u8], sorter: &mut Sorter) {
        let limit = self.limit();
        let mut out = sorter.sending.way_out(self.runner, limit, &mut self.number);
        let others = self.ports.iter_mut().filter(|(id, _)| *id != from);
        for (_, outlet) in others {
            let dropped = outlet.send(&mut out, bytes, [piece]);
            self.counts.dropped += dropped as u64;
        }
        self.counts.flooded += piece.frames as u64;
    }

    /// Sends every port the frames on its list.
    pub fn send_sorted(&mut self, bytes: &[u8], sorter: &mut Sorter) {
        let limit = self.limit();
        let Sorter { pieces, ports, sending, changed, .. } = sorter;
        let mut out = sending.way_out(self.runner, limit, &mut self.number);
        for id in ports.drain(..) {
            let outlet = &mut self.ports[id];
            let list = std::mem::replace(&mut outlet.pieces, List::EMPTY).over(pieces);
            let frames: usize = list.clone().map(|piece| piece.frames).sum();
            let dropped = outlet.send_changed(&mut out, bytes, list, changed);
            if !outlet.is_mirror() {
                self.counts.forwarded += (frames - dropped) as u64;
            }
            self.counts.dropped += dropped as u64;
        }
        pieces.clear();
    }
}
