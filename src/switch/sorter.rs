//! What came in during a turn, sorted by port, and how it is sent on.

use crate::frame::PREFIX;
use crate::sys::memory::Memory;
use crate::tx::Tx;

/// From this length on a piece is sent where it lies, though others have the same destination:
/// copying it would cost more than a write.
const LONG: usize = 16 << 10;

/// Room to copy short pieces together.
const ROOM: usize = 128 << 10;

const NO_PIECE: usize = usize::MAX;

/// Frames that lie one behind the other and go the same way.
#[derive(Clone, Copy)]
pub struct Piece {
    pub start: usize,
    pub end: usize,
    pub frames: usize,
    pub longest: usize,
    /// The next piece to the same port.
    pub next: usize,
}

impl Piece {
    pub fn at(start: usize) -> Piece {
        Piece { start, end: start, frames: 0, longest: 0, next: NO_PIECE }
    }

    #[inline]
    pub fn add(&mut self, frame_len: usize) {
        self.end += PREFIX + frame_len;
        self.frames += 1;
        self.longest = self.longest.max(frame_len);
    }
}

/// What came in during a turn, sorted by port.
pub struct Sorter {
    pub pieces: Vec<Piece>,
    /// Ports that have pieces.
    pub ports: Vec<usize>,
    /// To copy short pieces together.
    pub room: Memory,
}

impl Default for Sorter {
    fn default() -> Sorter {
        Sorter { pieces: Vec::new(), ports: Vec::new(), room: Memory::of(ROOM) }
    }
}

/// The pieces for one port: where its list begins and ends in the sorter.
#[derive(Clone, Copy)]
pub struct List {
    first: usize,
    last: usize,
}

impl List {
    pub const EMPTY: List = List { first: NO_PIECE, last: NO_PIECE };

    /// Its pieces, of all those that the sorter has.
    pub fn over(self, pieces: &[Piece]) -> impl Iterator<Item = Piece> + Clone {
        let next = |piece: &Piece| pieces.get(piece.next).copied();
        std::iter::successors(pieces.get(self.first).copied(), next)
    }
}

impl Sorter {
    /// Puts a piece at the end of a port's list.
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

/// Sends pieces of `bytes`, in order, short ones together. Returns how many frames were dropped.
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
