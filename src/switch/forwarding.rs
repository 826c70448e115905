//! Forwarding: each frame goes to the port where its destination is, to all others, or nowhere.

use std::time::Instant;

use crate::frame::{self, Alike, Run, Walk};
use crate::rx::counts::RxCounts;
use crate::switch::recent::{Addresses, Recent, Way};
use crate::switch::sorter::{List, Piece, Sorter};
use crate::switch::{Inside, Kind};

/// Where frames come in, and where the last of them went.
struct Course {
    from: usize,
    now: u64,
    addresses: Addresses,
    way: Way,
}

impl Inside {
    /// Sends on the whole frames at the front of `bytes`, which came in at port `from`. Returns how many
    /// bytes they have.
    pub fn forward(
        &mut self,
        from: usize,
        bytes: &[u8],
        counts: &RxCounts,
        sorter: &mut Sorter,
        now: Instant,
    ) -> usize {
        let now =
            if let Kind::Hub { table, .. } = &self.kind { Some(table.time(now)) } else { None };
        let mut course = Course {
            from,
            now: now.unwrap_or(0),
            addresses: Addresses::OF_GROUPS,
            way: Way::Others,
        };
        sorter.recent.clear();
        let (mut total, mut piece) = (Run::default(), Piece::at(0));
        let mut walk = Walk::over(bytes);
        while let Some(alike) = walk.next_alike(usize::MAX) {
            if alike.len < frame::MIN {
                self.dispatch(from, course.way, piece, bytes, sorter);
                piece = Piece::at(bytes.len() - walk.rest().len());
                total.runts += alike.count;
                continue;
            }
            total.frames += alike.count;
            total.bytes += alike.count * alike.len;
            if now.is_some() {
                piece = self.sort(&alike, &mut course, piece, bytes, sorter);
            } else {
                piece.add(alike.len, alike.count);
            }
        }
        self.dispatch(from, course.way, piece, bytes, sorter);
        self.send_sorted(bytes, sorter);
        total.end = bytes.len() - walk.rest().len();
        counts.run(&total);
        total.end
    }

    /// Finds where each of some frames goes, and dispatches those that do not go the same way as the last.
    /// Takes what goes with the frames before these, and returns what may go with those behind.
    fn sort(
        &mut self,
        alike: &Alike<'_>,
        course: &mut Course,
        mut piece: Piece,
        bytes: &[u8],
        sorter: &mut Sorter,
    ) -> Piece {
        let mut count = 0;
        for frame in alike.frames() {
            if let Some(addresses) = Addresses::of(frame)
                && addresses != course.addresses
            {
                let way = match sorter.recent.find(addresses) {
                    Some(way) => way,
                    None => self.way_of(course, addresses, &mut sorter.recent),
                };
                course.addresses = addresses;
                if way != course.way {
                    piece.add(alike.len, count);
                    count = 0;
                    let end = piece.end;
                    self.dispatch(course.from, course.way, piece, bytes, sorter);
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
    fn way_of(&mut self, course: &Course, addresses: Addresses, recent: &mut Recent) -> Way {
        let Kind::Hub { table, .. } = &mut self.kind else {
            return Way::Others;
        };
        if table.learn(addresses.source(), course.from, course.now) {
            recent.clear();
        }
        let way = match table.find(addresses.destination(), course.now) {
            Some(port) if port == course.from => Way::Back,
            Some(port) => Way::To(port),
            None => Way::Others,
        };
        recent.keep(addresses, way);
        way
    }

    /// Puts frames for one port on its list. Frames for many are sent at once, behind all that was sorted
    /// before.
    fn dispatch(&mut self, from: usize, way: Way, piece: Piece, bytes: &[u8], sorter: &mut Sorter) {
        if piece.frames == 0 {
            return;
        }
        match way {
            Way::Back => self.counts.dropped += piece.frames as u64,
            Way::To(port) => sorter.add(port, &mut self.ports[port].pieces, piece),
            Way::Others => {
                self.send_sorted(bytes, sorter);
                self.flood(from, piece, bytes, sorter);
            }
        }
    }

    /// Sends frames to every port but the one that they came from.
    fn flood(&mut self, from: usize, piece: Piece, bytes: &[u8], sorter: &mut Sorter) {
        let limit = self.limit();
        let others = self.ports.iter_mut().filter(|(id, _)| *id != from);
        for (_, outlet) in others {
            let dropped = outlet.send(self.runner, bytes, [piece], &mut sorter.room, limit);
            self.counts.dropped += dropped as u64;
        }
        self.counts.flooded += piece.frames as u64;
    }

    /// Sends every port the frames on its list.
    fn send_sorted(&mut self, bytes: &[u8], sorter: &mut Sorter) {
        let limit = self.limit();
        let Sorter { pieces, ports, room, .. } = sorter;
        for id in ports.drain(..) {
            let outlet = &mut self.ports[id];
            let list = std::mem::replace(&mut outlet.pieces, List::EMPTY).over(pieces);
            let frames: usize = list.clone().map(|piece| piece.frames).sum();
            let dropped = outlet.send(self.runner, bytes, list, room, limit);
            self.counts.forwarded += (frames - dropped) as u64;
            self.counts.dropped += dropped as u64;
        }
        pieces.clear();
    }
}
