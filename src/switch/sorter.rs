//! The frames that came in during a turn, sorted by port, and how a port sends its own.

use crate::frame::{PREFIX, Walk};
use crate::runtime::event_loop::Loop;
use crate::runtime::handle::Token;
use crate::switch::recent::{Addresses, Recent, Way};
use crate::switch::ruling::{Mark, Ruling};
use crate::switch::vlan::Change;
use crate::sys::memory::Memory;
use crate::tx::Tx;

/// A piece of this many bytes or more is written from where it lies, even if others go to the same port:
/// copying it would cost more than a write.
const LONG: usize = 16 << 10;

/// The size in bytes of the buffer in which short pieces are copied together. Any frame has room.
const TOGETHER: usize = 128 << 10;

const NO_PIECE: usize = usize::MAX;

/// Frames that lie one behind another and go the same way.
#[derive(Clone, Copy)]
pub struct Piece {
    pub start: usize,
    pub end: usize,
    pub frames: usize,
    pub longest: usize,
    /// What becomes of the tag of each.
    pub change: Change,
    /// The next piece to the same port.
    pub next: usize,
}

impl Piece {
    pub fn at(start: usize) -> Piece {
        let change = Change::None;
        Piece { start, end: start, frames: 0, longest: 0, change, next: NO_PIECE }
    }

    /// All of some frames in wire format.
    pub fn of(wire: &[u8]) -> Piece {
        let (mut piece, mut walk) = (Piece::at(0), Walk::over(wire));
        while let Some(alike) = walk.next_alike(usize::MAX) {
            piece.add(alike.len, alike.count);
        }
        piece
    }

    /// Its first frames, which are part of `bytes`.
    pub fn first(self, frames: usize, bytes: &[u8]) -> Piece {
        let mut first = Piece::at(self.start);
        let walk = Walk::over(&bytes[self.start..self.end]);
        walk.take(frames).for_each(|frame| first.add(frame.len(), 1));
        first
    }

    #[inline]
    pub fn add(&mut self, frame_len: usize, count: usize) {
        if count > 0 {
            self.end += count * (PREFIX + frame_len);
            self.frames += count;
            self.longest = self.longest.max(frame_len);
        }
    }
}

/// The frames that came in during a turn, sorted by port.
pub struct Sorter {
    pub pieces: Vec<Piece>,
    /// The ports whose lists have pieces.
    pub ports: Vec<usize>,
    /// Where frames with the same addresses went.
    pub recent: Recent<Addresses, Way>,
    /// The same where there are rules.
    pub rulings: Recent<Mark, Ruling>,
    /// Frames whose tags are changed, on their way out.
    pub changed: Vec<u8>,
    pub sending: Sending,
}

/// What sending takes beside the frames.
pub struct Sending {
    /// Short pieces are copied together in here.
    room: Memory,
    /// When the frames came that are being forwarded, or were due: what is under way takes it from there.
    /// `None` until somebody asks.
    pub begun: Option<u64>,
    /// What has passed of the pieces of a port whose cable is altered.
    passing: Vec<Piece>,
    /// What was written, where somebody wants to know: who gives the turns by hand.
    pub written: Option<Written>,
}

/// What was written to ports.
#[derive(Default)]
pub struct Written {
    /// The connections that were written to, and whether there was no room for all.
    pub ports: Vec<(Token, bool)>,
    /// How many frames, each counted for each port.
    pub frames: u64,
}

/// What one port after another is sent its frames with.
pub struct WayOut<'a> {
    pub runner: &'static Loop,
    /// How many bytes may be queued for a port.
    pub limit: usize,
    /// The number that the next frame takes which is held.
    pub number: &'a mut u64,
    pub room: &'a mut [u8],
    pub begun: &'a mut Option<u64>,
    pub passing: &'a mut Vec<Piece>,
    pub written: &'a mut Option<Written>,
}

impl Sending {
    pub fn way_out<'a>(
        &'a mut self,
        runner: &'static Loop,
        limit: usize,
        number: &'a mut u64,
    ) -> WayOut<'a> {
        let Sending { room, begun, passing, written } = self;
        WayOut { runner, limit, number, room, begun, passing, written }
    }
}

impl Default for Sorter {
    fn default() -> Sorter {
        let room = Memory::of(TOGETHER);
        let sending = Sending { room, begun: None, passing: Vec::new(), written: None };
        Sorter {
            pieces: Vec::new(),
            ports: Vec::new(),
            recent: Recent::new(Way::Others),
            rulings: Recent::new(Ruling::Back),
            changed: Vec::new(),
            sending,
        }
    }
}

/// The list of the pieces for one port, by the indices of its first and last in the sorter.
#[derive(Clone, Copy)]
pub struct List {
    first: usize,
    last: usize,
}

impl List {
    pub const EMPTY: List = List { first: NO_PIECE, last: NO_PIECE };

    /// Goes over the list's pieces, of all that the sorter has.
    pub fn over(self, pieces: &[Piece]) -> impl Iterator<Item = Piece> + Clone {
        let next = |piece: &Piece| pieces.get(piece.next).copied();
        std::iter::successors(pieces.get(self.first).copied(), next)
    }
}

impl Sorter {
    /// Puts a piece at the end of the list of port `id`.
    pub fn add(&mut self, id: usize, list: &mut List, piece: Piece) {
        let at = self.pieces.len();
        self.pieces.push(piece);
        if list.first == NO_PIECE {
            list.first = at;
            self.ports.push(id);
        } else {
            self.pieces[list.last].next = at;
        }
        list.last = at;
    }
}

/// Sends pieces of `bytes` in order, with one write for short ones that follow each other. Returns how
/// many frames were dropped.
pub fn pass_pieces(
    tx: &mut Tx,
    bytes: &[u8],
    pieces: impl Iterator<Item = Piece> + Clone,
    room: &mut [u8],
    limit: usize,
) -> usize {
    let mut dropped = 0;
    let is_alone = pieces.clone().nth(1).is_none();
    let (mut len, mut frames) = (0, 0);
    for piece in pieces {
        let part = &bytes[piece.start..piece.end];
        let joins = !is_alone && part.len() < LONG && tx.passes_as_is(piece.longest);
        if len > 0 && (!joins || len + part.len() > room.len()) {
            dropped += tx.pass(&room[..len], frames, limit);
            (len, frames) = (0, 0);
        }
        if joins {
            room[len..len + part.len()].copy_from_slice(part);
            len += part.len();
            frames += piece.frames;
        } else if tx.passes_as_is(piece.longest) {
            dropped += tx.pass(part, piece.frames, limit);
        } else {
            dropped += tx.pass_fitted(part, room, limit);
        }
    }
    if len > 0 {
        dropped += tx.pass(&room[..len], frames, limit);
    }
    dropped
}
