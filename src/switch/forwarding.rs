//! Forwarding: each frame goes to the port where its destination is, to all others, or nowhere.

use std::time::Instant;

use crate::frame::{self, PREFIX, Run, Walk};
use crate::rx::counts::RxCounts;
use crate::switch::sorter::{List, Piece, Sorter};
use crate::switch::table::Mac;
use crate::switch::{Inside, Kind};

/// A frame's destination and source address, which decide where it goes.
type Addresses = [u8; 12];

fn destination_of(&[a, b, c, d, e, f, ..]: &Addresses) -> Mac {
    [a, b, c, d, e, f]
}

fn source_of(&[.., a, b, c, d, e, f]: &Addresses) -> Mac {
    [a, b, c, d, e, f]
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the port that it came from: it is dropped.
    Back,
    To(usize),
    Others,
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
        let learns = !self.is_link();
        let mut total = Run::default();
        let mut way = Way::Others;
        let mut addresses = None;
        let mut piece = Piece::at(0);
        for frame in Walk::over(bytes) {
            let start = total.end;
            total.end += PREFIX + frame.len();
            let Some(header) = frame.first_chunk().filter(|_| frame.len() >= frame::MIN) else {
                total.runts += 1;
                self.dispatch(from, way, piece, bytes, sorter);
                piece = Piece::at(total.end);
                continue;
            };
            if learns && addresses != Some(*header) {
                let next = self.way_of(from, header, addresses.as_ref(), now);
                addresses = Some(*header);
                if next != way {
                    self.dispatch(from, way, piece, bytes, sorter);
                    (way, piece) = (next, Piece::at(start));
                }
            }
            total.frames += 1;
            total.bytes += frame.len();
            piece.add(frame.len());
        }
        self.dispatch(from, way, piece, bytes, sorter);
        self.send_sorted(bytes, sorter);
        counts.run(&total);
        total.end
    }

    /// Learns where the source of a frame is, and finds where the frame goes. Those `before` are the
    /// addresses of the frame ahead of it.
    fn way_of(
        &mut self,
        from: usize,
        addresses: &Addresses,
        before: Option<&Addresses>,
        now: Instant,
    ) -> Way {
        let Kind::Hub { table, .. } = &mut self.kind else {
            return Way::Others;
        };
        let source = source_of(addresses);
        if before.map(source_of) != Some(source) {
            table.learn(source, from, now);
        }
        match table.find(&destination_of(addresses), now) {
            Some(port) if port == from => Way::Back,
            Some(port) => Way::To(port),
            None => Way::Others,
        }
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
        let Sorter { pieces, ports, room } = sorter;
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
